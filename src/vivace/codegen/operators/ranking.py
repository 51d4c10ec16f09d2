"""Operators that rank elements along an axis: the first ones, and the places where they stand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch.fx import Node

from vivace.codegen.arrays import FLOAT, LONG, Array, Read, Value, dense, stored
from vivace.codegen.lowering import Lowering, kind_of, shape_of
from vivace.codegen.operators.sums import LARGEST, SMALLEST, reduced
from vivace.codegen.statements import SIMD, Statement, rows_of, walked
from vivace.core.errors import NotApplicable

MOST = 64
"""So many first elements are found by insertion; for more, sorting would be faster."""
ABOVE = "(({0}) > ({1}) || (({0}) != ({0}) && ({1}) == ({1})))"
BELOW = "(({0}) < ({1}) || (({0}) != ({0}) && ({1}) == ({1})))"
BELOW_LAST = "(({0}) < ({1}) || (({1}) != ({1}) && ({0}) == ({0})))"
"""Whether the one comes before the other. What is not a number comes first, but last among the smallest of `topk`."""


def largest(lowering: Lowering, node: Node, value: Value, dim: Any = None, keepdim: bool = False) -> Any:
    """max: of all elements, or of two tensors', or the largest ones along an axis and where they stand."""
    if isinstance(dim, Value):
        return lowering.formula("maximum", [value, dim], shape_of(node), kind_of(node))
    return reduced(lowering, node, value, None, LARGEST) if dim is None else _one(lowering, value, dim, keepdim, ABOVE)


def smallest(lowering: Lowering, node: Node, value: Value, dim: Any = None, keepdim: bool = False) -> Any:
    """min, alike."""
    if isinstance(dim, Value):
        return lowering.formula("minimum", [value, dim], shape_of(node), kind_of(node))
    return reduced(lowering, node, value, None, SMALLEST) if dim is None else _one(lowering, value, dim, keepdim, BELOW)


def place_of_largest(lowering: Lowering, node: Node, value: Value, dim: Any = None, keepdim: bool = False) -> Value:
    """argmax: along an axis, or of all elements one after the other."""
    return _place(lowering, value, dim, keepdim, ABOVE)


def place_of_smallest(lowering: Lowering, node: Node, value: Value, dim: Any = None, keepdim: bool = False) -> Value:
    """argmin, alike."""
    return _place(lowering, value, dim, keepdim, BELOW)


def first_ones(
    lowering: Lowering, node: Node, value: Value, k: int, dim: int = -1, largest: bool = True, ordered: bool = True
) -> list[Value]:
    """topk: so many elements along an axis, in their order, and where they stand; of equal ones the first."""
    return list(map(stored, _first(lowering, value, k, dim, ABOVE if largest else BELOW_LAST)))


def in_order(
    lowering: Lowering, node: Node, value: Value, dim: int = -1, descending: bool = False, **_: Any
) -> list[Value]:
    """sort: all elements along an axis, and where they stood; of equal ones the first."""
    size = value.shape[dim] if value.shape else 1
    return list(map(stored, _first(lowering, value, size, dim, ABOVE if descending else BELOW_LAST)))


def places_in_order(lowering: Lowering, node: Node, value: Value, dim: int = -1, descending: bool = False) -> Value:
    """argsort: the places alone."""
    return in_order(lowering, node, value, dim, descending)[1]


def _one(lowering: Lowering, value: Value, dim: int, keepdim: bool, before: str) -> list[Value]:
    found = _first(lowering, value, 1, dim, before)
    return [stored(one if keepdim else _without(one, dim)) for one in found]


def _place(lowering: Lowering, value: Value, dim: int | None, keepdim: bool, before: str) -> Value:
    if dim is not None:
        return _one(lowering, value, dim, keepdim, before)[1]
    array = lowering.stored(value)
    array = array if array.is_dense else lowering.copied(stored(array))
    line = dataclasses.replace(array, shape=(value.size,), strides=(1,))
    place = _first(lowering, stored(line), 1, 0, before)[1]
    shape = (1,) * len(value.shape) if keepdim else ()
    return stored(dataclasses.replace(place, shape=shape, strides=(0,) * len(shape)))


def _without(array: Array, dim: int) -> Array:
    """An array without an axis of length one."""
    axis = dim % max(1, len(array.shape))
    shape, strides = ((*each[:axis], *each[axis + 1 :]) for each in (array.shape, array.strides))
    return dataclasses.replace(array, shape=shape, strides=strides)


def _first(lowering: Lowering, value: Value, count: int, dim: int, before: str) -> tuple[Array, Array]:
    """The first `count` elements along an axis, and where they stand: each is put in its place among those so far."""
    value = value if value.shape else stored(dataclasses.replace(lowering.stored(value), shape=(1,), strides=(1,)))
    axis = dim % len(value.shape)
    size = value.shape[axis]
    if value.kind not in (FLOAT, LONG) or not 0 < count <= min(MOST, size):
        raise NotApplicable(f"there is no C for the first {count} of {size} elements of the kind {value.kind}")
    value = stored(lowering.stored(value))
    shape = (*value.shape[:axis], count, *value.shape[axis + 1 :])
    found, places = lowering.room(shape, value.kind), lowering.room(shape, LONG)
    lines = Array("", (*shape[:axis], 1, *shape[axis + 1 :]), dense(shape))
    own, other = ((*lines.index[:axis], name, *lines.index[axis + 1 :]) for name in ("j", "r"))
    own = own if count > 1 else lines.index
    other = other if size > 1 else lines.index
    body = (
        f"{{ {value.kind} v[{count}]; long p[{count}], n = 0;\n"
        f"      for (long r = 0; r < {size}; r++) {{ const {value.kind} x = {value.at(other)};\n"
        f"        long j = n < {count} ? n++ : {before.format('x', f'v[{count - 1}]')} ? {count - 1} : {count};\n"
        f"        if (j == {count}) continue;\n"
        f"        for (; j > 0 && {before.format('x', 'v[j - 1]')}; j--) {{ v[j] = v[j - 1]; p[j] = p[j - 1]; }}\n"
        f"        v[j] = x; p[j] = r; }}\n"
        f"      for (long j = 0; j < {count}; j++) {{ {found.at(own)} = v[j]; {places.at(own)} = p[j]; }} }}"
    )
    head = " ".join(walked(lines)).replace(SIMD, "")
    writes = (Read(found.name, None), Read(places.name, None))
    if lines.outer is None:
        lowering.statements.append(Statement(f"  if (t == 0) {body}", value.reads(other), writes))
    else:
        rows = rows_of(lines.shape[lines.outer], lowering.threads)
        if found.outer == lines.outer:
            writes = (found.divided(), places.divided())
        lowering.statements.append(Statement(f"  {{ {rows}\n    {head} {body} }}", value.reads(other), writes))
    return found, places


RANKING: Mapping[str, Callable[..., Any]] = {
    "max": largest, "min": smallest, "argmax": place_of_largest, "argmin": place_of_smallest, "topk": first_ones,
    "sort": in_order, "argsort": places_in_order,
}  # fmt: skip
"""By the operator's name."""
