"""The walk over an exported graph with one call's shapes: what never changes is computed, the rest is written down."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from vivace.codegen.arrays import Array, Value, stored
from vivace.codegen.elementwise import FORMULAS
from vivace.codegen.lowering import kind_of, operator_of, shape_of
from vivace.codegen.operators.picking import PICKING
from vivace.codegen.operators.walk import OPERATORS
from vivace.codegen.operators.writing import functional, is_in_place, is_mutable, writes_own
from vivace.core.errors import NotApplicable
from vivace.runtimes import eager
from vivace.runtimes.native.activations import ACTIVATIONS
from vivace.runtimes.native.attention import ATTENTION
from vivace.runtimes.native.joining import JOINING
from vivace.runtimes.native.lowering import Program, Waiting
from vivace.runtimes.native.norms import NORMS
from vivace.runtimes.native.pooling import POOLING
from vivace.runtimes.native.products import PRODUCTS
from vivace.runtimes.native.recurrent import RECURRENT
from vivace.runtimes.native.resizing import RESIZING
from vivace.runtimes.told.operators import STANDING_IN

ABOVE: Mapping[str, Callable[..., Any]] = {
    **ACTIVATIONS, **PRODUCTS, **ATTENTION, **NORMS, **POOLING, **JOINING, **PICKING, **RECURRENT,
    **RESIZING,
}  # fmt: skip
"""What is written down as a whole, by the operator's name."""
TAKES_WAITING = frozenset({"relu", "relu6", "hardtanh", "clamp", "add", "batch_norm", "dropout", "conv1d", "conv2d"})
"""What may become a part of the product before it, or tells it how to be written."""
OF_SHAPES = frozenset({"sym_size", "sym_stride", "sym_numel", "sym_storage_offset", "size", "stride", "numel", "dim"})
"""Operators whose plain numbers are the same for every call of these shapes; those of all others may not be."""
MOST_KNOWN = 1 << 24
"""Elements of a number that is computed before the program is written."""


def write(program: Program, exported: ExportedProgram, inputs: Sequence[Tensor], arrays: Sequence[Array]) -> list[Any]:
    """Write an exported program down for calls like `inputs`, which will lie in `arrays`; what it gives.

    Raises NotApplicable with the name of the operator that there is no C for.
    """
    graph = eager.copied_graph(exported)
    walk = _Walk(program, exported.graph_module)
    known = iter(eager.lifted_values(exported))
    given = iter(zip(inputs, arrays, strict=True))
    count = len(eager.lifted_names(exported))
    for place, node in enumerate(graph.find_nodes(op="placeholder")):
        if place < count:
            value = next(known)
            walk.know(node, value.detach() if isinstance(value, Tensor) else value)
        else:
            leaf, array = next(given)
            walk.give(node, leaf, stored(array))
    with torch.no_grad():
        results = walk.graph(graph)
    return [program.stored(walk.value(one)) for one in pytree.tree_leaves(results) if one is not None]


class _Walk:
    """What is known of each node: a number that never changes, or what it was at one call and its value in C.

    The call is computed, operator by operator: PyTorch tells shapes without numbers too, but imports much for it.
    """

    def __init__(self, program: Program, module: torch.nn.Module, whose: str = "") -> None:
        self._program = program
        self._module = module
        self._whose = whose
        """The operator that this graph takes apart; empty for the graph of the whole network."""
        self._known: dict[fx.Node, Any] = {}
        self._seen: dict[fx.Node, Any] = {}
        self._values: dict[fx.Node, Any] = {}

    def know(self, node: fx.Node, value: Any) -> None:
        """That a node never changes."""
        self._known[node] = value

    def give(self, node: fx.Node, seen: Any, value: Any) -> None:
        """What a node was at one call, and its value."""
        self._seen[node], self._values[node] = seen, value

    def value(self, argument: Any) -> Any:
        """An argument as handlers take it: constants as arrays of constants."""
        if isinstance(argument, fx.Node):
            if argument in self._known:
                return _held(self._program, self._known[argument])
            return self._values[argument]
        if isinstance(argument, list | tuple):
            return [self.value(one) for one in argument]
        return argument

    def graph(self, graph: fx.Graph) -> Any:
        """Walk a graph whose placeholders are known; the arguments of its output."""
        last = {used: node for node in graph.nodes for used in node.all_input_nodes}
        for node in graph.nodes:
            if node.op == "call_function":
                self._call(node)
                for used in node.all_input_nodes:
                    if last[used] is node:
                        self._seen.pop(used, None)
            elif node.op == "get_attr":
                self._known[node] = _attribute(self._module, str(node.target))
            elif node.op == "output":
                return node.args[0]
        raise NotApplicable("the graph returns nothing")

    def _call(self, node: fx.Node) -> None:
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            raise NotApplicable(f"there is no C for {node.target}")
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) and not _is_quiet(node):
            raise NotApplicable(f"{node.target} draws random numbers")
        used = node.all_input_nodes
        if all(one in self._known for one in used) and not _is_large(node):
            args, options = self._put(node, self._known.__getitem__)
            self._known[node] = known = node.target(*args, **options)  # type: ignore[operator]
            node.meta = {**node.meta, "val": known}
            return
        if is_mutable(node.target) and not _drops_nothing(node) and not (is_in_place(node) and writes_own(node)):
            raise NotApplicable(f"{node.target} writes over what is used again")
        args, options = self._put(node, self._at_the_call)
        if _has_no_fixed_shape(node.target, args):
            raise NotApplicable(f"there is no C for {node.target}, whose answer's shape depends on numbers of the call")
        if is_mutable(node.target) and isinstance(args[0], Tensor):
            args = (args[0].clone(), *args[1:])  # what lies there may be a constant
        seen = node.target(*args, **options)  # type: ignore[operator]
        if not any(isinstance(one, Tensor) for one in pytree.tree_leaves(seen)):
            if seen is not None and str(node.target).split(".")[1] not in OF_SHAPES:
                raise NotApplicable(f"there is no C for {node.target}, whose answer depends on numbers of the call")
            self._known[node] = seen
            return
        node.meta = {**node.meta, "val": pytree.tree_map_only(Tensor, _stand_in, seen)}
        with self._program.doing((self._whose or node.name,)):
            self.give(node, seen, self._shared(node, self._lowered(node)))

    def _lowered(self, node: fx.Node) -> Any:
        arguments: list[Any] = [self.value(one) for one in node.args]
        options = {key: self.value(one) for key, one in node.kwargs.items()}
        if node.target is operator.getitem:
            return arguments[0][arguments[1]]
        name = operator_of(node)
        name = name[:-1] if is_in_place(node) else name
        if name not in TAKES_WAITING:
            arguments = pytree.tree_map(self._program.written, arguments, is_leaf=lambda x: isinstance(x, Value))
            options = pytree.tree_map(self._program.written, options, is_leaf=lambda x: isinstance(x, Value))
        if name in ABOVE:
            try:
                found = ABOVE[name](self._program, node, *arguments, **options)
                return _with_member(found, self._whose or node.name, arguments)
            except NotApplicable as reason:
                return self._decomposed(node, reason)
        if name in FORMULAS and not options:
            return self._program.formula(name, arguments, shape_of(node), kind_of(node))
        if name in OPERATORS:
            return OPERATORS[name](self._program, node, *arguments, **options)
        return self._decomposed(node, NotApplicable(f"there is no C for the operator {node.target}"))

    def _decomposed(self, node: fx.Node, reason: NotApplicable) -> Any:
        """An operator by others (`STANDING_IN`), or by what PyTorch says that it consists of; where that says nothing,
        or has no C, the reason why it has none itself is raised."""
        target, nodes = _functional(node.target), list(dict.fromkeys(node.all_input_nodes))
        target = STANDING_IN.get(operator_of(node), target)
        tensors = [one for one in nodes if isinstance(self._at_the_call(one), Tensor)]

        def call(*given: Tensor) -> Any:
            by = dict(zip(tensors, given, strict=True))
            args, options = self._put(node, lambda one: by[one] if one in by else self._at_the_call(one))
            return target(*args, **options)

        try:
            made = _decomposition(call, [self._at_the_call(one) for one in tensors])
        except NotApplicable as part:
            raise reason from part
        calls = [one for one in made.graph.nodes if one.op == "call_function"]
        if any(one.target is target for one in calls):
            raise reason
        inner = _Walk(self._program, made, self._whose or node.name)
        for place, one in zip(made.graph.find_nodes(op="placeholder"), tensors, strict=True):
            if one in self._known:
                inner.know(place, self._known[one])
            else:
                inner.give(place, self._seen[one], self._program.written(self._values[one]))
        precision = self._program.precision
        self._program.precision = functools.partial(_always, precision(node.name))  # parts have names of their own
        try:
            return inner.value(inner.graph(made.graph))
        except NotApplicable as part:
            raise reason from part
        finally:
            self._program.precision = precision

    def _put(self, node: fx.Node, get: Callable[[fx.Node], Any]) -> tuple[Any, Any]:
        return fx.node.map_arg(node.args, get), fx.node.map_arg(node.kwargs, get)

    def _at_the_call(self, node: fx.Node) -> Any:
        return self._known[node] if node in self._known else self._seen[node]

    def _shared(self, node: fx.Node, value: Any) -> Any:
        """What several operators read is computed once, unless it is a number."""
        if not isinstance(value, Value) or value.array is not None or len(node.users) < 2:
            return value
        if not isinstance(value, Waiting) and not value.reads(tuple("0" for _ in value.shape)):
            return value
        return stored(self._program.stored(value))


def _always(precision: str, name: str) -> str:
    return precision


def _with_member(found: Any, name: str, arguments: Sequence[Any]) -> Any:
    """A product that waits, with the node that it has just done the work of."""
    if not isinstance(found, Waiting) or any(found is one for one in arguments):
        return found
    return dataclasses.replace(found, members=tuple(dict.fromkeys((*found.members, name))))


def _drops_nothing(node: fx.Node) -> bool:
    """Whether it is a dropout of evaluation, which writes what was there."""
    return operator_of(node) == "dropout_" and not (node.args[1] and node.args[2])


def _functional(target: Any) -> Any:
    """The same operator, giving what this one writes over its first operand."""
    if not is_mutable(target):
        return target
    found = functional(target)
    if found is None:
        raise NotApplicable(f"there is no C for {target}, which writes over its operand")
    return found


def _held(program: Program, known: Any) -> Any:
    if isinstance(known, Tensor):
        return stored(program.constant(known))
    return [_held(program, one) for one in known] if isinstance(known, list | tuple) else known


def _is_large(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and isinstance(value.numel(), int) and value.numel() > MOST_KNOWN


def _attribute(module: torch.nn.Module, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _stand_in(tensor: Tensor) -> Tensor:
    """A tensor like this one, without numbers."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _has_no_fixed_shape(target: Any, args: Sequence[Any]) -> bool:
    """Whether an operator gives another shape for other numbers in tensors of the same shapes."""
    if target is torch.ops.aten.index.Tensor:
        return any(one.dtype in (torch.bool, torch.uint8) for one in args[1] if one is not None)
    return torch.Tag.dynamic_output_shape in getattr(target, "tags", ())


def _decomposition(call: Callable[..., Any], given: Sequence[Tensor]) -> fx.GraphModule:
    """The operators that PyTorch says a call consists of. What it takes for that is imported now: a second or two."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    with FakeTensorMode():
        fakes = [torch.empty_strided(one.shape, one.stride(), dtype=one.dtype) for one in given]
        return make_fx(call, decomposition_table=_table(), tracing_mode="fake")(*fakes)


@functools.cache
def _table() -> Any:
    """What operators consist of, also some that PyTorch itself counts among its core."""
    from torch._decomp import core_aten_decompositions, get_decompositions

    aten = torch.ops.aten
    more = [aten.native_group_norm, aten.native_layer_norm, aten.leaky_relu, aten.elu, aten.hardtanh, aten.gelu,
            aten.grid_sampler_2d]  # fmt: skip
    return {**core_aten_decompositions(), **get_decompositions(more)}


def _is_quiet(node: fx.Node) -> bool:
    """Whether an operator that may draw random numbers does so in training alone, or has a handler that sees it."""
    return any(word in str(node.target) for word in ("dropout", "lstm", "gru", "rnn_", "attention"))
