"""Operators that give the same elements under other indices: no statement in C, only other places to read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import Node

from vivace.codegen.arrays import Array, Index, Order, Shape, Value, broadcast, constant, dense, layout_of, stored
from vivace.codegen.elementwise import number
from vivace.codegen.lowering import Lowering, shape_of
from vivace.core.errors import NotApplicable


def moved(
    value: Value, shape: Shape, strides: Callable[[Array], tuple[Shape, int]], back: Callable[[Index], Index],
    order: Order | None = None,
) -> Value:  # fmt: skip
    """A value's elements under other indices: `back` gives the old index, `strides` the strides and the offset of an
    array that is looked at so, `order` how it should lie if it is written down."""
    if value.array is not None:
        steps, offset = strides(value.array)
        return stored(Array(value.array.name, shape, steps, value.kind, offset))
    return Value(
        shape, value.kind, lambda i: value.at(back(i)), lambda i: value.reads(back(i)), None, value.is_costly, order
    )


def permute(lowering: Lowering, node: Node, value: Value, dims: Sequence[int]) -> Value:
    """Axes in another order."""
    order = [dim % len(value.shape) for dim in dims]

    def back(index: Index) -> Index:
        return tuple(index[order.index(place)] for place in range(len(order)))

    shape = tuple(value.shape[dim] for dim in order)
    lies = value.order and tuple(order.index(axis) for axis in value.order)
    return moved(value, shape, lambda array: (tuple(array.strides[dim] for dim in order), array.offset), back, lies)


def transpose(lowering: Lowering, node: Node, value: Value, one: int, other: int) -> Value:
    """Two axes exchanged."""
    order = list(range(len(value.shape)))
    order[one], order[other] = order[other], order[one]
    return permute(lowering, node, value, order)


def transposed(lowering: Lowering, node: Node, value: Value) -> Value:
    """A matrix transposed; what has fewer axes as it is."""
    return transpose(lowering, node, value, 0, 1) if len(value.shape) == 2 else value


def expand(lowering: Lowering, node: Node, value: Value, *_: Any, **__: Any) -> Value:
    """Stretched along axes of length one, and along new ones."""
    shape = shape_of(node)
    given = lowering.settled(value, math.prod(shape))
    more = len(shape) - len(given.shape)

    def stretched(array: Array) -> tuple[Shape, int]:
        own = zip(array.strides, array.shape, shape[more:], strict=True)
        return (0,) * more + tuple(0 if old == 1 and new != 1 else step for step, old, new in own), array.offset

    return moved(given, shape, stretched, lambda index: broadcast(given, index))


def unsqueeze(lowering: Lowering, node: Node, value: Value, dim: int) -> Value:
    """With one more axis, of length one."""
    return wider(value, dim % (len(value.shape) + 1))


def wider(value: Value, place: int) -> Value:
    """A value with one more axis there, of length one."""
    shape = (*value.shape[:place], 1, *value.shape[place:])

    def steps(array: Array) -> tuple[Shape, int]:
        return (*array.strides[:place], 0, *array.strides[place:]), array.offset

    return moved(value, shape, steps, lambda index: (*index[:place], *index[place + 1 :]))


def squeeze(lowering: Lowering, node: Node, value: Value, dims: Any = None) -> Value:
    """Without axes of length one."""
    rank = len(value.shape)
    chosen = range(rank) if dims is None else ([dims] if isinstance(dims, int) else dims)
    gone = {dim % rank for dim in chosen if value.shape[dim] == 1}
    kept = [place for place in range(rank) if place not in gone]

    def back(index: Index) -> Index:
        return tuple(index[kept.index(place)] if place in kept else "0" for place in range(rank))

    def narrower(array: Array) -> tuple[Shape, int]:
        return tuple(array.strides[place] for place in kept), array.offset

    return moved(value, shape_of(node), narrower, back)


def view(lowering: Lowering, node: Node, value: Value, *_: Any) -> Value:
    """In another shape; copied first where the elements do not lie one after the other."""
    shape = shape_of(node)
    array = lowering.stored(value)
    strides = _viewed(array, shape)
    if strides is None:
        array = lowering.copied(stored(array))
        strides = dense(shape)
    return stored(Array(array.name, shape, strides, array.kind, array.offset))


def _viewed(array: Array, shape: Shape) -> Shape | None:
    """The strides with which an array's elements, where they lie, are those of another shape; None where they cannot.

    >>> _viewed(Array("a", (2, 3, 4), (12, 4, 1)), (6, 4)), _viewed(Array("a", (2, 3), (1, 2)), (6,))
    ((4, 1), None)
    """
    try:
        return torch.empty_strided(array.shape, array.strides, device="meta").view(shape).stride()
    except RuntimeError:
        return None


def select(lowering: Lowering, node: Node, value: Value, dim: int, at: int) -> Value:
    """One index of an axis, which goes."""
    dim, at = dim % len(value.shape), at % value.shape[dim]

    def less(array: Array) -> tuple[Shape, int]:
        return (*array.strides[:dim], *array.strides[dim + 1 :]), array.offset + at * array.strides[dim]

    return moved(value, shape_of(node), less, lambda index: (*index[:dim], str(at), *index[dim:]))


def cut(
    lowering: Lowering, node: Node, value: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Value:
    """A slice of an axis."""
    dim, length = dim % len(value.shape), value.shape[dim]
    first = _first(start, length)

    def sliced(array: Array) -> tuple[Shape, int]:
        steps = [each * step if place == dim else each for place, each in enumerate(array.strides)]
        return tuple(steps), array.offset + first * array.strides[dim]

    def back(index: Index) -> Index:
        return (*index[:dim], f"({index[dim]}*{step} + {first})", *index[dim + 1 :])

    return moved(value, shape_of(node), sliced, back)


def flipped(lowering: Lowering, node: Node, value: Value, dims: Sequence[int]) -> Value:
    """flip: from the last to the first, along some axes."""
    axes = {dim % len(value.shape) for dim in dims}

    def back(index: Index) -> Index:
        return tuple(
            f"({value.shape[axis] - 1} - {place})" if axis in axes and value.shape[axis] > 1 else place
            for axis, place in enumerate(index)
        )

    return Value(
        value.shape, value.kind, lambda i: value.at(back(i)), lambda i: value.reads(back(i)), None, value.is_costly,
        value.layout,
    )  # fmt: skip


def diagonal(lowering: Lowering, node: Node, value: Value, offset: int = 0, one: int = 0, other: int = 1) -> Value:
    """The elements whose places on two axes differ by so much, as a last axis."""
    one, other = one % len(value.shape), other % len(value.shape)
    begin = (max(0, -offset), max(0, offset))
    kept = [axis for axis in range(len(value.shape)) if axis not in (one, other)]

    def along(array: Array) -> tuple[Shape, int]:
        steps = array.strides
        first = begin[0] * steps[one] + begin[1] * steps[other]
        return (*(steps[axis] for axis in kept), steps[one] + steps[other]), array.offset + first

    def back(index: Index) -> Index:
        own = dict(zip(kept, index, strict=False))
        own |= {one: f"({index[-1]} + {begin[0]})", other: f"({index[-1]} + {begin[1]})"}
        return tuple(own[axis] for axis in range(len(value.shape)))

    return moved(value, shape_of(node), along, back)


def windows(lowering: Lowering, node: Node, value: Value, dim: int, size: int, step: int) -> Value:
    """unfold: windows of an axis, so many elements apart; what is in them becomes a last axis."""
    axis = dim % len(value.shape)

    def opened(array: Array) -> tuple[Shape, int]:
        each = array.strides[axis]
        return (*array.strides[:axis], each * step, *array.strides[axis + 1 :], each), array.offset

    def back(index: Index) -> Index:
        return (*index[:axis], f"({index[axis]}*{step} + {index[-1]})", *index[axis + 1 : -1])

    return moved(value, shape_of(node), opened, back)


def from_windows(
    lowering: Lowering, node: Node, value: Value, shape: Sequence[int], dim: int, size: int, step: int
) -> Value:
    """unfold_backward: each element is given what its window is; those in none zero."""
    axis = dim % len(shape)
    if step < size and value.shape[axis] > 1:
        raise NotApplicable("there is no C for gradients of windows that overlap")

    def back(index: Index) -> Index:
        return (*index[:axis], f"({index[axis]}/{step})", *index[axis + 1 :], f"({index[axis]} % {step})")

    def asked(index: Index) -> str:
        return f"{index[axis]}/{step} < {value.shape[axis]} && {index[axis]} % {step} < {size}"

    return _beside(_zeros(shape, value), value, back, asked)


def selected(lowering: Lowering, node: Node, value: Value, shape: Sequence[int], dim: int, at: int) -> Value:
    """select_backward: a value at one index of an axis, zero at the others."""
    return with_one(lowering, node, _zeros(shape, value), value, dim, at)


def sliced(
    lowering: Lowering, node: Node, value: Value, shape: Sequence[int], dim: int, start: int, end: int, step: int
) -> Value:
    """slice_backward: a value at a slice of an axis, zero beside it."""
    return with_slice(lowering, node, _zeros(shape, value), value, dim, start, end, step)


def with_one(lowering: Lowering, node: Node, value: Value, part: Value, dim: int, at: int) -> Value:
    """select_scatter: a value with another one at one index of an axis."""
    axis, number = dim % len(value.shape), at % value.shape[dim]
    return _beside(value, part, lambda i: (*i[:axis], *i[axis + 1 :]), lambda i: f"{i[axis]} == {number}")


def with_slice(
    lowering: Lowering, node: Node, value: Value, part: Value, dim: int = 0, start: Any = None, end: Any = None,
    step: int = 1,
) -> Value:  # fmt: skip
    """slice_scatter: a value with another one in the place of a slice of an axis."""
    axis = dim % len(value.shape)
    first, length = _first(start, value.shape[axis]), part.shape[axis]

    def back(index: Index) -> Index:
        return (*index[:axis], f"(({index[axis]} - {first})/{step})", *index[axis + 1 :])

    def asked(index: Index) -> str:
        past = f"{index[axis]} - {first}"
        return f"{past} >= 0 && {past} < {length * step} && ({past}) % {step} == 0"

    return _beside(value, part, back, asked)


def _first(start: Any, length: int) -> int:
    """Where a slice of an axis begins, which may be told from the end, or not at all."""
    begin = start or 0
    return min(max(begin + (length if begin < 0 else 0), 0), length)


def _zeros(shape: Sequence[int], like: Value) -> Value:
    return constant("0", tuple(shape), like.kind)


def _beside(
    value: Value, part: Value, back: Callable[[Index], Index], asked: Callable[[Index], str]
) -> Value:  # fmt: skip
    """A value with another one where that is asked for, at the index that `back` gives."""
    return Value(
        value.shape, value.kind, lambda i: f"({asked(i)} ? {part.at(back(i))} : {value.at(i)})",
        lambda i: (*part.reads(back(i)), *value.reads(i)), None, part.is_costly or value.is_costly,
        layout_of([value], value.shape),
    )  # fmt: skip


def padded(lowering: Lowering, node: Node, value: Value, sizes: Sequence[int], fill: Any = 0) -> Value:
    """constant_pad_nd: with more elements before and behind, or fewer, of the last axes; sizes begin with the last."""
    if not any(sizes):
        return value
    shape, rank = shape_of(node), len(value.shape)
    before = {rank - 1 - place // 2: size for place, size in enumerate(sizes) if place % 2 == 0}
    moved_axes = [axis for axis, size in before.items() if size or shape[axis] != value.shape[axis]]

    def back(index: Index) -> Index:
        return tuple(f"({one} - {before[axis]})" if axis in moved_axes else one for axis, one in enumerate(index))

    def asked(index: Index) -> str:
        own = back(index)
        return " && ".join(f"{own[axis]} >= 0 && {own[axis]} < {value.shape[axis]}" for axis in moved_axes)

    other = number(fill or 0, value.kind)
    return Value(
        shape, value.kind, lambda i: f"({asked(i)} ? {value.at(back(i))} : {other})",
        lambda i: value.reads(back(i)), None, value.is_costly, value.layout,
    )  # fmt: skip


VIEWS: Mapping[str, Callable[..., Any]] = {
    "permute": permute, "transpose": transpose, "t": transposed, "expand": expand, "unsqueeze": unsqueeze,
    "squeeze": squeeze, "view": view, "_unsafe_view": view, "reshape": view, "select": select, "slice": cut,
    "select_backward": selected, "slice_backward": sliced, "slice_scatter": with_slice, "select_scatter": with_one,
    "constant_pad_nd": padded, "flip": flipped, "diagonal": diagonal, "unfold": windows,
    "unfold_backward": from_windows,
}  # fmt: skip
"""By the operator's name."""
