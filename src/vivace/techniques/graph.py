"""Opens an exported program, lets a technique change its graph and its weights, and closes it without a new trace."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

import torch
from torch._dispatch.python import enable_python_dispatcher
from torch._guards import detect_fake_mode
from torch._ops import HigherOrderOperator
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature, InputKind, InputSpec, TensorArgument
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from vivace.core.errors import NotApplicable
from vivace.core.program import Form, Model

WEIGHT_KINDS = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


def torch_program(model: Model) -> ExportedProgram:
    """The model's exported program. Raises NotApplicable when the model has another form by now."""
    if model.form is not Form.TORCH:
        raise NotApplicable(f"needs a PyTorch graph, and the program is already {model.form.value}")
    program: ExportedProgram = model.program
    return program


RECURRENT = (torch.ops.aten.lstm.input, torch.ops.aten.gru.input)
"""Their kernels ask for concrete sizes, which a trace has not; their shapes never change here, only their dtype."""


class GraphEdit:
    """An exported program laid open: nodes may be changed freely, weights only through the methods here.

    The program that was given stays as it is: the graph is a copy, and weights are replaced, never written into.
    Symbolic shapes survive, because `close` runs the changed graph on the fake inputs of the original trace.
    """

    def __init__(self, program: ExportedProgram) -> None:
        self._program = program
        self.graph = Graph()
        self.graph.output(self.graph.graph_copy(program.graph, {}))
        self._inputs = {_argument_name(spec): spec for spec in program.graph_signature.input_specs}
        self._weights = {name: _value(program, spec) for name, spec in self._inputs.items() if _is_weight(spec)}
        fakes = [node.meta.get("val") for node in self.graph.nodes if node.op == "placeholder"]
        self.fake_mode: Any = detect_fake_mode([fake for fake in fakes if isinstance(fake, torch.Tensor)])

    def calls(self, *targets: Any) -> Iterator[Node]:
        """The nodes that call one of these operators, in order."""
        return (node for node in list(self.graph.nodes) if node.op == "call_function" and node.target in targets)

    def weight(self, node: object) -> torch.Tensor | None:
        """The value of a weight's node; None for anything else, also for a weight that the graph writes to."""
        return self._weights.get(node.name) if isinstance(node, Node) and node.op == "placeholder" else None

    def set_weight(self, node: Node, value: torch.Tensor) -> None:
        """Give a weight another value, in this program only."""
        self._weights[node.name] = value.detach()
        node.meta = {**node.meta, "val": self._fake(value)}

    def add_weight(self, name: str, value: torch.Tensor) -> Node:
        """A new weight, as a node that later nodes can use."""
        target = name.replace(".", "_")
        first_user_input = next(n for n in self.graph.nodes if n.op != "placeholder" or n.name not in self._weights)
        with self.graph.inserting_before(first_user_input):
            node = self.graph.placeholder(f"b_{target}")
        self._inputs[node.name] = InputSpec(InputKind.BUFFER, TensorArgument(node.name), node.name, persistent=True)
        self._weights[node.name] = value.detach()
        node.meta = {"val": self._fake(value)}
        return node

    def take(self, module: GraphModule) -> None:
        """Put another graph over the same inputs in this one's place; the tensors that it gets by name become weights.

        For tools that change a module of the graph (`runtimes.eager.as_module`). Nodes keep their names.
        """
        own = [node for node in self.graph.find_nodes(op="placeholder") if node.name not in self._weights]
        self.graph = Graph()
        inputs = [self.graph.node_copy(node) for node in own]
        places = dict(zip(module.graph.find_nodes(op="placeholder"), inputs, strict=True))
        for node in module.graph.find_nodes(op="get_attr"):
            value = attrgetter(str(node.target))(module)
            if isinstance(value, torch.Tensor):
                places[node] = self.add_weight(str(node.target), value)
        self.graph.output(self.graph.graph_copy(module.graph, places))

    def infer(self, node: Node) -> None:
        """Renew what a call is known to give (dtype, shape, strides) from what is known of its inputs."""
        known: Any = map_arg((node.args, node.kwargs), lambda n: n.meta.get("val"))
        args, kwargs = known
        # composite operators in C++ refuse sizes that are symbols; PyTorch's own in Python, which export uses, do not
        with self.fake_mode, torch.no_grad(), enable_python_dispatcher():
            if node.target in RECURRENT:
                value = tuple(old.to(args[0].dtype) for old in node.meta["val"])
            else:
                value = node.target(*args, **kwargs)  # type: ignore[operator]
        node.meta = {**node.meta, "val": value}

    def close(self) -> ExportedProgram:
        """The changed program. Weights that nothing uses any more are left out."""
        for node in self.graph.find_nodes(op="placeholder"):
            if node.name in self._weights and not node.users:
                self.graph.erase_node(node)
        self.graph.lint()
        names = [node.name for node in self.graph.find_nodes(op="placeholder")]
        for node in self.graph.nodes:
            if _can_infer(node):
                self.infer(node)
        signature = ExportGraphSignature([self._inputs[name] for name in names], self._output_specs())
        return self._rebuild(GraphModule(self._program.graph_module, self.graph), signature)

    def _fake(self, value: torch.Tensor) -> torch.Tensor:
        if self.fake_mode is None:
            raise NotApplicable("the program's graph carries no shapes")
        fake: torch.Tensor = self.fake_mode.from_tensor(value.detach(), static_shapes=True)
        return fake

    def _output_specs(self) -> list[Any]:
        results: Any = self.graph.output_node().args[0]
        specs = []
        for spec, result in zip(self._program.graph_signature.output_specs, results, strict=True):
            is_tensor = isinstance(spec.arg, TensorArgument) and isinstance(result, Node)
            specs.append(dataclasses.replace(spec, arg=TensorArgument(result.name)) if is_tensor else spec)
        return specs

    def _rebuild(self, module: GraphModule, signature: ExportGraphSignature) -> ExportedProgram:
        state: dict[str, Any] = {}
        constants = {k: v for k, v in self._program.constants.items() if not isinstance(v, torch.Tensor)}
        for spec in signature.input_specs:
            name = _argument_name(spec)
            if name in self._weights and spec.target is not None:
                kept = constants if _is_constant(spec) else state
                kept[spec.target] = _as_kind(self._weights[name], spec.kind)
        return ExportedProgram(
            root=module,
            graph=module.graph,
            graph_signature=signature,
            state_dict=state,
            range_constraints=dict(self._program.range_constraints),
            module_call_graph=self._program.module_call_graph,
            example_inputs=self._program.example_inputs,
            constants=constants,
            verifiers=self._program.verifiers,
        )


def _can_infer(node: Node) -> bool:
    """Not for operators that hold graphs of their own, nor for those whose sizes depend on values."""
    is_call = node.op == "call_function" and not isinstance(node.target, HigherOrderOperator)
    return is_call and "unbacked_bindings" not in node.meta


def _argument_name(spec: InputSpec) -> str:
    return str(getattr(spec.arg, "name", ""))


def _is_weight(spec: InputSpec) -> bool:
    return spec.kind in WEIGHT_KINDS and spec.target is not None


def _is_constant(spec: InputSpec) -> bool:
    return spec.kind is InputKind.CONSTANT_TENSOR or (spec.kind is InputKind.BUFFER and spec.persistent is False)


def _value(program: ExportedProgram, spec: InputSpec) -> torch.Tensor:
    found: Any = (program.constants if _is_constant(spec) else program.state_dict)[str(spec.target)]
    value: torch.Tensor = found.detach()
    return value


def _as_kind(value: torch.Tensor, kind: InputKind) -> torch.Tensor:
    return torch.nn.Parameter(value, requires_grad=False) if kind is InputKind.PARAMETER else value
