"""Form TORCH: an exported graph run operator by operator, with less overhead than the module it came from."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from vivace.core.program import Model
from vivace.runtimes.graphs.laid_out import laid_out
from vivace.runtimes.program import Program
from vivace.runtimes.settings.around import under_settings

_COARSE_DTYPES = (torch.bfloat16, torch.float16, torch.int8, torch.uint8)
FlatFunction = Callable[..., tuple[Tensor, ...]]
_OPERATOR = re.compile(r"torch\.ops(?:\.\w+){2,3}")
_CHECKS = ("_assert_tensor_metadata",)
_VIEWS = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)


def load(model: Model) -> Program:
    """A program of an exported graph, under the model's settings."""
    function = flat_function(placed(model.program, model.settings.device))
    return Program(model.signature, model.settings, under_settings(lambda leaves: function(*leaves), model.settings))


def run_flat(program: ExportedProgram, leaves: Sequence[Tensor]) -> list[Tensor]:
    """One run of an exported graph over flat tensors."""
    return list(flat_function(program)(*leaves))


def flat_function(program: ExportedProgram) -> FlatFunction:
    """The graph as one plain function of its flat inputs, parameters already bound.

    The graph's operators are called directly: no module hooks, no guards, no pytrees (these cost 100 us a call in
    `program.module()`).
    """
    lifted, more = lifted_values(program), []
    function = open_function(program, lambda graph: more.extend(laid_out(graph, lifted)))
    return functools.partial(function, *lifted, *more)


def open_function(program: ExportedProgram, change: Callable[[fx.Graph], object] | None = None) -> Callable[..., Any]:
    """The same, that takes the parameters, buffers and constants first, in the order of `lifted_values`.

    `change` may change the graph, of which it gets a copy.
    """
    graph = copied_graph(program)
    if change is not None:
        change(graph)
    return functools.partial(compiled_graph(graph), program.graph_module)


def is_coarse(program: ExportedProgram) -> bool:
    """Whether the graph computes with 16-bit floats or quantized integers somewhere inside."""
    values = (node.meta.get("val") for node in program.graph.nodes)
    return any(isinstance(value, Tensor) and value.dtype in _COARSE_DTYPES for value in values)


def as_module(program: ExportedProgram) -> fx.GraphModule:
    """The graph as a module over flat tensors that owns its parameters and buffers, without guards.

    For compilers.
    """
    root = torch.nn.Module()
    for name, child in program.graph_module.named_children():
        root.add_module(name, child)
    graph = copied_graph(program)
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    for node, name in zip(placeholders, lifted_names(program), strict=False):
        attribute = _attach(root, name, _value(program, name))
        with graph.inserting_before(node):
            replacement = graph.get_attr(attribute)
        replacement.meta = dict(node.meta)
        node.replace_all_uses_with(replacement)
        graph.erase_node(node)
    return fx.GraphModule(root, graph)


def _attach(root: torch.nn.Module, name: str, value: Any) -> str:
    attribute = re.sub(r"\W", "_", name)
    while hasattr(root, attribute):
        attribute += "_"
    if isinstance(value, torch.nn.Parameter):
        root.register_parameter(attribute, value)
    elif isinstance(value, Tensor):
        root.register_buffer(attribute, value)
    else:
        setattr(root, attribute, value)
    return attribute


def copied_graph(program: ExportedProgram) -> fx.Graph:
    """A copy of a program's graph without what only checks."""
    graph = fx.Graph()
    graph.output(graph.graph_copy(program.graph_module.graph, {}))
    for node in list(graph.nodes):
        if isinstance(node.target, torch._ops.OpOverload) and node.target._opname in _CHECKS:
            graph.erase_node(node)
    return graph


def compiled_graph(graph: fx.Graph) -> Callable[..., Any]:
    """The function of a graph, its operators bound as globals instead of looked up on every call. Its first argument is
    the module that holds what the graph gets by name."""
    code = graph.python_code("self")
    names: dict[str, Any] = {}

    def bind(match: re.Match[str]) -> str:
        name = "_" + match.group().replace(".", "_")
        names[name] = _callee(match.group())
        return name

    source = _OPERATOR.sub(bind, code.src)
    scope: dict[str, Any] = {**code.globals, **names}
    exec(compile(source, "<vivace graph>", "exec"), scope)
    forward: Callable[..., Any] = scope["forward"]
    return forward


def _callee(path: str) -> Any:
    found: Any = torch
    for part in path.split(".")[1:]:
        found = getattr(found, part)
    return found._op if isinstance(found, torch._ops.OpOverload) else found


def lifted_names(program: ExportedProgram) -> list[str]:
    """Names of the parameters, buffers and constants that the graph takes before the flat inputs."""
    return [str(spec.target) for spec in program.graph_signature.input_specs if spec.target is not None]


def lifted_values(program: ExportedProgram) -> list[Any]:
    """Their values, in the same order."""
    return [_value(program, name) for name in lifted_names(program)]


def _value(program: ExportedProgram, name: str) -> Any:
    return program.state_dict[name] if name in program.state_dict else program.constants[name]


def placed(program: ExportedProgram, device: str) -> ExportedProgram:
    """The same program with its values on a device.

    Kernels there may lay out what they write in another way than those of the processor, on which the graph was
    captured: what only looks at memory anew (a view) copies where it must.
    """
    if device == "cpu":
        return program
    from torch.export.passes import move_to_device_pass

    moved = move_to_device_pass(program, device)
    for module in moved.graph_module.modules():
        if isinstance(module, fx.GraphModule):
            for node in module.graph.nodes:
                if node.target in _VIEWS:
                    node.target = torch.ops.aten.reshape.default
            module.recompile()
    return moved
