"""Operators that write elements to places that are computed: over what is there, or added to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.fx import Node

from vivace.codegen.arrays import LONG, Index, Read, Shape, Value, broadcast, constant, stored
from vivace.codegen.elementwise import number
from vivace.codegen.lowering import Lowering, kind_of, shape_of
from vivace.codegen.operators.picking import Numbers, counted
from vivace.codegen.statements import Statement, loop, rows_of
from vivace.core.errors import NotApplicable

Places = Callable[[Index], tuple[Index, tuple[Read, ...]]]
"""For an element that is written: its index in the answer, and what that reads."""


def scattered(lowering: Lowering, node: Node, value: Value, dim: int, where: Value, source: Any, **how: Any) -> Value:
    """scatter: along one axis to the number that stands at the same place; of several that go to one place the last."""
    if how:
        raise NotApplicable(f"there is no C for {node.target} that puts elements together")
    return _along(lowering, node, value, dim, where, source, "=")


def added(lowering: Lowering, node: Node, value: Value, dim: int, where: Value, source: Value) -> Value:
    """scatter_add: alike, added to what is there."""
    return _along(lowering, node, value, dim, where, source, "+=")


def lines_added(
    lowering: Lowering, node: Node, value: Value, dim: int, where: Value, source: Value, alpha: float = 1
) -> Value:
    """index_add: each slice of an axis added to the one whose number is given."""
    if alpha != 1 or len(where.shape) != 1:
        raise NotApplicable(f"there is no C for {node.target} but of slices as they are")
    axis, places = dim % len(value.shape), stored(lowering.stored(where))
    whole = Value(
        source.shape, LONG, lambda i: places.at(i[axis : axis + 1]), lambda i: places.reads(i[axis : axis + 1])
    )
    return _along(lowering, node, value, dim, whole, source, "+=")


def put(
    lowering: Lowering, node: Node, value: Value, indices: Sequence[Any], source: Value, accumulate: bool = False
) -> Value:
    """index_put: to the places at numbers, for axes that follow one another."""
    places = Numbers.of(lowering, node, value, indices)
    first, last = places.first, places.first + len(places.shape)
    shape = (*value.shape[:first], *places.shape, *value.shape[first + len(places.sizes) :])
    free = [axis for axis in range(len(shape)) if not first <= axis < last]
    how = "+=" if accumulate else "="
    return _written(lowering, node, value, shape, free, lambda i: (places.at(i), places.reads(i)), source, how)


def _along(lowering: Lowering, node: Node, value: Value, dim: int, where: Value, source: Any, how: str) -> Value:
    if not value.shape:
        raise NotApplicable(f"there is no C for {node.target} of a number")
    axis = dim % len(value.shape)
    places = stored(lowering.stored(where))

    def to(index: Index) -> tuple[Index, tuple[Read, ...]]:
        place = counted(places.at(index), value.shape[axis])
        return (*index[:axis], place, *index[axis + 1 :]), places.reads(index)

    if not isinstance(source, Value):
        source = constant(number(source, value.kind), where.shape, value.kind)
    free = [other for other in range(len(where.shape)) if other != axis]
    return _written(lowering, node, value, where.shape, free, to, source, how)


def _written(
    lowering: Lowering, node: Node, value: Value, shape: Shape, free: Sequence[int], to: Places, source: Value, how: str
) -> Value:
    """The value, and then every element of `shape` where it goes. Threads divide one of the `free` axes, along which no
    two elements go to one place."""
    made = lowering.room(shape_of(node), kind_of(node))
    lowering.statements.append(loop(made, value, lowering.threads))
    source = stored(lowering.stored(source))
    divided = next((axis for axis in free if shape[axis] > 1), None)
    index = tuple(f"e{axis}" if size != 1 else "0" for axis, size in enumerate(shape))
    place, reads = to(index)
    begins = {axis: ("from", "to") if axis == divided else ("0", str(size)) for axis, size in enumerate(shape)}
    walk = " ".join(
        f"for (long e{axis} = {begins[axis][0]}; e{axis} < {begins[axis][1]}; e{axis}++)"
        for axis, size in enumerate(shape)
        if size != 1
    )
    body = f"{walk} {made.at(place)} {how} {source.at(broadcast(source, index))};"
    if divided is None:
        text = f"  if (t == 0) {{ {body} }}"
    else:
        text = f"  {{ {rows_of(shape[divided], lowering.threads)}\n    {body} }}"
    others = (*reads, *source.reads(broadcast(source, index)))
    used = [Read(made.name, None), *(Read(one.name, None) for one in others)]
    lowering.statements.append(Statement(text, tuple(used), (Read(made.name, None),)))
    return stored(made)


SCATTERING: Mapping[str, Callable[..., Any]] = {
    "scatter": scattered, "scatter_add": added, "index_add": lines_added, "index_put": put,
    "_unsafe_index_put": put,
}  # fmt: skip
"""By the operator's name."""
