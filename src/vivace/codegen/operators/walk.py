"""The operators of a recorded step that can be written in C, by their names, and the walk over a recording's graph."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from vivace.codegen.arrays import FLOAT, Array, Value, constant, stored
from vivace.codegen.elementwise import FORMULAS, number
from vivace.codegen.lowering import Lowering, converted, kind_of, operator_of, shape_of
from vivace.codegen.operators import batches, views
from vivace.codegen.operators.joins import JOINS
from vivace.codegen.operators.picking import PICKING
from vivace.codegen.operators.ranking import RANKING
from vivace.codegen.operators.scattering import SCATTERING
from vivace.codegen.operators.sums import SUMS
from vivace.codegen.operators.views import VIEWS
from vivace.codegen.operators.writing import given_that_is_written, is_in_place, writes_own
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
    written = given_that_is_written(node)
    name = operator_of(node)
    name = name[:-1] if written is not None or (is_in_place(node) and writes_own(node)) else name
    found = _by_name(lowering, node, name, arguments, options, others)
    return found if written is None else lowering.leave(values[written].array, found)


def _by_name(
    lowering: Lowering, node: Node, name: str, arguments: list[Any], options: dict[str, Any], others: Operators
) -> Any:
    if name in others:
        return others[name](lowering, node, *arguments, **options)
    if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
        raise NotApplicable(f"the step draws random numbers for which there is no C ({node.target})")
    if name in FORMULAS and not options:
        return lowering.formula(name, arguments, shape_of(node), kind_of(node))
    if name not in OPERATORS:
        raise NotApplicable(f"there is no C for the operator {node.target}")
    return OPERATORS[name](lowering, node, *arguments, **options)


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


def _divide(lowering: Lowering, node: Node, one: Any, other: Any, rounding_mode: str | None = None) -> Value:
    """div with a mode: rounded down, or to zero."""
    shape, kind = shape_of(node), kind_of(node)
    if rounding_mode == "floor":
        return lowering.formula("floor_divide", [one, other], shape, kind)
    found = lowering.formula("div", [one, other], shape, kind)
    return found if rounding_mode is None or kind != FLOAT else lowering.formula("trunc", [found], shape, kind)


def _filled_with(place: int) -> Callable[..., Value]:
    def full(lowering: Lowering, node: Node, *arguments: Any, **_: Any) -> Value:
        return constant(number(arguments[place], kind_of(node)), shape_of(node), kind_of(node))

    return full


def _filled_by(lowering: Lowering, node: Node, value: Value, other: Any) -> Value:
    """fill: one number in the place of all."""
    if isinstance(other, Value):
        return views.expand(lowering, node, converted(other, kind_of(node)))
    return constant(number(other, kind_of(node)), shape_of(node), kind_of(node))


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


def _copied(lowering: Lowering, node: Node, to: Value, source: Value, *_: Any) -> Value:
    """copy: what is written, in the shape of what it is written over."""
    return views.expand(lowering, node, converted(source, kind_of(node)))


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
    **VIEWS, **SUMS, **JOINS, **PICKING, **RANKING, **SCATTERING,
    "add": _add, "sub": _subtract, "rsub": _subtract_from, "pow": _power, "div": _divide,
    "fill": _filled_by, "full": _filled_with(1), "full_like": _filled_with(1),
    "scalar_tensor": _filled_with(0), "zeros": _always(0),
    "zeros_like": _always(0), "new_zeros": _always(0), "ones": _always(1), "ones_like": _always(1),
    "new_ones": _always(1), "empty": _unset, "empty_like": _unset, "arange": _counting, "clone": _same,
    "alias": _same, "detach": _same, "lift_fresh": _same, "lift_fresh_copy": _same, "_to_copy": _convert,
    "copy": _copied, "mm": _product, "addmm": _product_and_row, "bmm": _products,
}  # fmt: skip
"""By the operator's name; beside `FORMULAS`, which need nothing else."""
