"""The operators of a recorded step that can be written in C, by their names, and the walk over a recording's graph."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from vivace.codegen.arrays import BOOL, FLOAT, Array, Value, constant, stored
from vivace.codegen.elementwise import FORMULAS, number
from vivace.codegen.lowering import Lowering, converted, kind_of, operator_of, shape_of
from vivace.codegen.operators import batches, views
from vivace.codegen.operators.joins import JOINS
from vivace.codegen.operators.picking import PICKING
from vivace.codegen.operators.sums import SUMS
from vivace.codegen.operators.views import VIEWS
from vivace.core.errors import NotApplicable

Operators = Mapping[str, Callable[..., Any]]
"""What writes operators down, by their names without overload: (lowering, node, arguments) -> value."""


def lowered(
    graph: GraphModule, inputs: Sequence[Array], lowering: Lowering, others: Operators | None = None
) -> list[Value]:
    """Write a graph down; what it returns. `inputs` are the arrays that its placeholders stand for, `others` what is
    known beside `OPERATORS`, such as how random numbers are drawn.

    Raises NotApplicable with the name of the operator that there is no C for.
    """
    values: dict[Node, Any] = {}
    given = iter(inputs)
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            values[node] = stored(next(given))
        elif node.op == "call_function":
            values[node] = _shared(lowering, node, _value(lowering, node, values, others or {}))
        elif node.op == "output":
            return [values[one] for one in node.args[0]]
        elif node.op == "get_attr" and _is_literal(getattr(graph, node.target), node):
            values[node] = _literal(getattr(graph, node.target), node)
        else:
            raise NotApplicable(f"the step reads {node.target}, which is neither the model's nor the batch's")
    raise NotApplicable("the recording returns nothing")


def _is_literal(value: Any, node: Node) -> bool:
    """Whether it is a number, or nothing, that the step makes a tensor of, as `torch.tensor(0.5)` does."""
    is_small = isinstance(value, torch.Tensor) and value.numel() <= 1
    return is_small and all(operator_of(user).startswith("lift_fresh") for user in node.users)


def _literal(value: torch.Tensor, node: Node) -> Value:
    held = value.item() if value.numel() else 0
    return constant(number(held, kind_of(node)), shape_of(node), kind_of(node))


def _value(lowering: Lowering, node: Node, values: Mapping[Node, Any], others: Operators) -> Any:
    arguments: list[Any] = [_filled(one, values) for one in node.args]
    options: dict[str, Any] = {key: _filled(one, values) for key, one in node.kwargs.items()}
    if node.target is operator.getitem:
        return arguments[0][arguments[1]]
    given = _buffer(node)
    if given is not None:
        return lowering.leave(values[given].array, _written(lowering, node, arguments, options))
    name = _as_new(node)
    if name in others:
        return others[name](lowering, node, *arguments, **options)
    if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
        raise NotApplicable(f"the step draws random numbers for which there is no C ({node.target})")
    if name in FORMULAS and not options and not _negates_bits(name, node):
        return lowering.formula(name, arguments, shape_of(node), kind_of(node))
    if name not in OPERATORS:
        raise NotApplicable(f"there is no C for the operator {node.target}")
    return OPERATORS[name](lowering, node, *arguments, **options)


def _buffer(node: Node) -> Node | None:
    """What was given to the step and is written into by an operator, maybe once more, as the last to read it; or None.
    Who reads it afterwards reads what the operator gives, and the recording says so."""
    into = node.args[0] if node.args and _is_in_place(node) else None
    if not isinstance(into, Node) or not _is_last(into, node):
        return None
    return into if into.op == "placeholder" else _buffer(into) if into.op == "call_function" else None


def _written(lowering: Lowering, node: Node, arguments: Sequence[Any], options: Mapping[str, Any]) -> Value:
    """What an operator writes into a tensor that was given to the step."""
    name = operator_of(node)[:-1]
    if name == "copy":
        source, shape = arguments[1], shape_of(node)
        return source if source.shape == shape else views.expand(lowering, node, source)
    if name not in OPERATORS:
        if name not in FORMULAS:
            raise NotApplicable(f"there is no C for the operator {node.target}")
        return lowering.formula(name, arguments, shape_of(node), kind_of(node))
    found: Value = OPERATORS[name](lowering, node, *arguments, **options)
    return found


def _as_new(node: Node) -> str:
    """The operator's name; one that writes into what nobody reads afterwards is as good as one that makes a tensor."""
    name, into = operator_of(node), node.args[0] if node.args else None
    is_new = _is_in_place(node) and name != "copy_" and isinstance(into, Node) and _is_own(into, node)
    return name[:-1] if is_new else name


def _is_in_place(node: Node) -> bool:
    """Whether an operator writes into its first operand, as `add_` does (and `__and__` does not)."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable and operator_of(node).endswith("_")


def _is_own(made: Any, last: Node) -> bool:
    """Whether a tensor lies in memory that no other value shares, and `last` is the last to read it. Parts of an
    `unsafe_split` count as such: who asks for it promises that."""
    if made.op != "call_function":
        return False
    if not _is_last(made, last):
        return False
    if made.target is operator.getitem:
        return operator_of(made.args[0]).startswith("unsafe_")
    return not _shares(made) or (_is_in_place(made) and _is_own(made.args[0], made))


def _is_last(made: Node, last: Node) -> bool:
    """Whether nobody reads a tensor after `last`, in its own place or in another value's that shares its memory."""
    others = [one for one in made.users if one is not last]
    later = last.next
    while others and later.op != "root":
        if later in others:
            return False
        later = later.next
    return not any(_shares(one) for one in others)


def _shares(node: Node) -> bool:
    """Whether what an operator gives may lie in the memory of what it was given."""
    schema = getattr(node.target, "_schema", None)
    return schema is None or any(one.alias_info is not None for one in schema.returns)


def _negates_bits(name: str, node: Node) -> bool:
    return name.startswith("bitwise") and kind_of(node) != BOOL


def _filled(argument: Any, values: Mapping[Node, Any]) -> Any:
    if isinstance(argument, Node):
        return values[argument]
    return [_filled(one, values) for one in argument] if isinstance(argument, list | tuple) else argument


def _shared(lowering: Lowering, node: Node, value: Any) -> Any:
    """What several operators read is computed once, unless it is a number."""
    if not isinstance(value, Value) or value.array is not None or len(node.users) < 2:
        return value
    is_number = not value.is_costly and not value.reads(tuple("0" for _ in value.shape))
    return value if is_number else stored(lowering.stored(value))


def _add(lowering: Lowering, node: Node, one: Any, other: Any, alpha: float = 1) -> Value:
    return _weighted(lowering, "plus", node, one, other, alpha)


def _subtract(lowering: Lowering, node: Node, one: Any, other: Any, alpha: float = 1) -> Value:
    return _weighted(lowering, "minus", node, one, other, alpha)


def _subtract_from(lowering: Lowering, node: Node, one: Any, other: Any, alpha: float = 1) -> Value:
    return _weighted(lowering, "minus", node, other, one, alpha)


def _weighted(lowering: Lowering, name: str, node: Node, one: Any, other: Any, alpha: float) -> Value:
    if alpha != 1:
        shape = other.shape if isinstance(other, Value) else ()
        other = lowering.formula("mul", [other, alpha], shape, kind_of(node))
    return lowering.formula(name, [one, other], shape_of(node), kind_of(node))


def _power(lowering: Lowering, node: Node, value: Any, exponent: Any) -> Value:
    if exponent == 2 and isinstance(value, Value):
        return lowering.formula("mul", [value, value], shape_of(node), kind_of(node))
    if exponent == 3 and isinstance(value, Value):
        square = lowering.formula("mul", [value, value], shape_of(node), kind_of(node))
        return lowering.formula("mul", [square, value], shape_of(node), kind_of(node))
    return lowering.formula("power", [value, exponent], shape_of(node), kind_of(node))


def _filled_with(place: int) -> Callable[..., Value]:
    def full(lowering: Lowering, node: Node, *arguments: Any, **_: Any) -> Value:
        return constant(number(arguments[place], kind_of(node)), shape_of(node), kind_of(node))

    return full


def _always(value: int) -> Callable[..., Value]:
    def full(lowering: Lowering, node: Node, *_: Any, **__: Any) -> Value:
        return constant(number(value, kind_of(node)), shape_of(node), kind_of(node))

    return full


def _unset(lowering: Lowering, node: Node, *_: Any, **__: Any) -> Value:
    """empty: whatever is there; also of kinds that have no place in C, where there are no elements."""
    shape = shape_of(node)
    return constant("0", shape, FLOAT if 0 in shape else kind_of(node))


def _counting(lowering: Lowering, node: Node, *arguments: Any, **_: Any) -> Value:
    """arange with whole numbers."""
    start, step = (arguments[0] if len(arguments) > 1 else 0), (arguments[2] if len(arguments) > 2 else 1)
    kind = kind_of(node)
    return Value(shape_of(node), kind, lambda i: f"({kind})({start} + {i[0]}*{step})", lambda i: ())


def _same(lowering: Lowering, node: Node, value: Value, *_: Any, **__: Any) -> Value:
    return value


def _convert(lowering: Lowering, node: Node, value: Value, **_: Any) -> Value:
    return converted(value, kind_of(node))


def _copy(lowering: Lowering, node: Node, to: Value, source: Value, *_: Any) -> Value:
    if to.array is not None:
        raise NotApplicable("it writes into a part of a tensor, or into what is read again: there is no C for that")
    return converted(source, kind_of(node))


def _product(lowering: Lowering, node: Node, a: Value, b: Value) -> Value:
    return lowering.product(shape_of(node), a, b, None, _is_narrow(node))


def _product_and_row(
    lowering: Lowering, node: Node, bias: Value, a: Value, b: Value, beta: float = 1, alpha: float = 1
) -> Value:
    array = bias.array
    if array is not None and array.shape == (b.shape[1],) and array.is_dense and beta == alpha == 1:
        return lowering.product(shape_of(node), a, b, array, _is_narrow(node))
    found = lowering.product(shape_of(node), a, b, None, _is_narrow(node))
    scaled = [
        lowering.formula("mul", [one, by], shape_of(node) if one is found else bias.shape, FLOAT)
        for one, by in ((found, alpha), (bias, beta))
    ]
    return lowering.formula("plus", scaled, shape_of(node), FLOAT)


def _products(lowering: Lowering, node: Node, a: Value, b: Value) -> Value:
    return batches.product(lowering, node, a, b, _is_narrow(node))


def _is_narrow(node: Node) -> bool:
    last = node.args[-1]
    return isinstance(last, Node) and last.meta["val"].dtype is torch.bfloat16


OPERATORS: Operators = {
    **VIEWS, **SUMS, **JOINS, **PICKING, "add": _add, "sub": _subtract,
    "rsub": _subtract_from, "pow": _power, "full": _filled_with(1),
    "full_like": _filled_with(1), "scalar_tensor": _filled_with(0), "zeros": _always(0), "zeros_like": _always(0),
    "new_zeros": _always(0), "new_ones": _always(1), "empty_like": _always(0), "empty": _unset, "ones": _always(1),
    "ones_like": _always(1), "arange": _counting, "clone": _same, "alias": _same, "detach": _same,
    "lift_fresh": _same, "lift_fresh_copy": _same, "_to_copy": _convert, "copy_": _copy, "mm": _product,
    "addmm": _product_and_row, "bmm": _products,
}  # fmt: skip
"""By the operator's name; beside `FORMULAS`, which need nothing else."""
