"""Values put together, cut in parts, and put into larger ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.fx import Node

from vivace.codegen import views
from vivace.codegen.arrays import Array, Index, Read, Value, dense, stored
from vivace.codegen.elementwise import number
from vivace.codegen.lowering import kind_of, shape_of
from vivace.codegen.statements import Statement, loop
from vivace.core.errors import NotApplicable
from vivace.runtimes.native.lowering import Program


def joined(program: Program, node: Node, values: Sequence[Value], dim: int = 0) -> Value:
    """cat: one after the other along an axis."""
    shape, axis = shape_of(node), dim % len(shape_of(node))
    values = [one for one in values if one.size]
    to = program.room(shape, kind_of(node), values[0].layout if len(values[0].shape) == len(shape) else None)
    texts, reads, first = [], list[Read](), 0
    for value in values:
        part = Array(to.name, value.shape, to.strides, to.kind, to.offset + first * to.strides[axis])
        made = loop(part, value, program.threads)
        texts.append(made.text)
        reads += made.reads
        first += value.shape[axis]
    is_split = all(len(value.shape) and value.shape[to.outer or 0] == shape[to.outer or 0] for value in values)
    written = to.divided() if is_split and to.outer is not None and to.outer != axis else Read(to.name, None)
    program.statements.append(Statement("\n".join(texts), tuple(reads), (written,)))
    known = [value.array is not None and program.is_nonnegative(value.array) for value in values]
    if all(known):
        program.nonnegative.add(to.name)
    return stored(to)


def stacked(program: Program, node: Node, values: Sequence[Value], dim: int = 0) -> Value:
    """stack: side by side along a new axis."""
    rank = len(shape_of(node))
    place = dim % rank
    wider = [_wider(one, place) for one in values]
    return joined(program, node, wider, place)


def _wider(value: Value, place: int) -> Value:
    shape = (*value.shape[:place], 1, *value.shape[place:])

    def steps(array: Array) -> tuple[tuple[int, ...], int]:
        return (*array.strides[:place], 0, *array.strides[place:]), array.offset

    return views.moved(value, shape, steps, lambda index: (*index[:place], *index[place + 1 :]))


def parts(program: Program, node: Node, value: Value, *arguments: Any, **_: Any) -> list[Value]:
    """chunk, split, tensor_split, unbind: as many parts as the operator gives."""
    value = stored(program.stored(value))
    found, first = [], 0
    is_unbind = "unbind" in str(node.target)
    dim = (arguments[0] if is_unbind else arguments[1] if len(arguments) > 1 else 0) if arguments else 0
    dim = int(node.kwargs.get("dim", dim)) % len(value.shape)  # type: ignore[arg-type]
    for one in node.meta["val"]:
        if is_unbind:
            found.append(views.select(program, node, value, dim, first))
            first += 1
        else:
            size = int(one.shape[dim])
            found.append(_part(value, tuple(int(size) for size in one.shape), dim, first))
            first += size
    return found


def _part(value: Value, shape: tuple[int, ...], dim: int, first: int) -> Value:
    """What lies of a stored value from one place of an axis on."""
    array = value.array
    assert array is not None
    return stored(Array(array.name, shape, array.strides, array.kind, array.offset + first * array.strides[dim]))


def padded(
    program: Program, node: Node, value: Value, pads: Sequence[int], mode: str = "constant", fill: Any = None
) -> Value:
    """pad, constant_pad_nd: with one number around."""
    if mode != "constant" or any(pad < 0 for pad in pads):
        raise NotApplicable(f"there is no C for {node.target} but with a number around")
    shape = shape_of(node)
    source = stored(program.stored(value))
    before = [0] * len(shape)
    for place in range(len(pads) // 2):
        before[len(shape) - 1 - place] = pads[2 * place]
    kind = kind_of(node)

    def at(index: Index) -> str:
        inside, own = [], []
        for place, less, size, whole in zip(index, before, source.shape, shape, strict=True):
            if size == whole:
                own.append(place)
                continue
            own.append(f"({place} - {less})")
            inside.append(f"{place} >= {less} && {place} < {less + size}")
        return f"({' && '.join(inside)} ? {source.at(tuple(own))} : {number(fill or 0, kind)})"

    order = source.layout
    made = program.room(shape, kind, order)
    index = made.index
    is_same = made.outer is not None and source.shape[made.outer] == shape[made.outer]
    reads = source.reads(index) if is_same else (Read(source.array.name, None),)  # type: ignore[union-attr]
    whole = Value(shape, kind, at, lambda _: reads)
    program.statements.append(loop(made, whole, program.threads))
    if source.array is not None and program.is_nonnegative(source.array) and not fill:
        program.nonnegative.add(made.name)
    return stored(made)


def flattened(program: Program, node: Node, value: Value, *_: Any, **__: Any) -> Value:
    """flatten, unflatten, reshape: in the shape that the operator gives."""
    return views.view(program, node, value)


def strided(
    program: Program, node: Node, value: Value, shape: Sequence[int], strides: Sequence[int], offset: Any = None
) -> Value:
    """as_strided where it only says that elements follow one another, as decompositions do."""
    if tuple(strides) != dense(shape) or offset or math.prod(shape) != value.size:
        raise NotApplicable(f"there is no C for {node.target} but of elements that follow one another")
    return views.view(program, node, value)


def enlarged(program: Program, node: Node, value: Value, *_: Any) -> Value:
    """upsample_nearest by whole numbers."""
    shape = shape_of(node)
    if any(large % small for large, small in zip(shape[2:], value.shape[2:], strict=True)):
        raise NotApplicable(f"there is no C for {node.target} but by whole numbers")
    source = stored(program.stored(value))
    by = [large // small for large, small in zip(shape[2:], value.shape[2:], strict=True)]

    def back(index: Index) -> Index:
        return (*index[:2], *(f"(({place})/{one})" for place, one in zip(index[2:], by, strict=True)))

    found = Value(
        shape, source.kind, lambda i: source.at(back(i)), lambda i: source.reads(back(i)), None, False, source.layout
    )
    made = program.stored(found)
    if source.array is not None and program.is_nonnegative(source.array):
        program.nonnegative.add(made.name)
    return stored(made)


JOINING: Mapping[str, Callable[..., Any]] = {
    "cat": joined, "concat": joined, "stack": stacked, "chunk": parts, "split": parts, "split_with_sizes": parts,
    "tensor_split": parts, "unbind": parts, "pad": padded, "constant_pad_nd": padded,
    "flatten": flattened, "unflatten": flattened, "reshape": flattened, "as_strided": strided,
    "upsample_nearest1d": enlarged, "upsample_nearest2d": enlarged,
}  # fmt: skip
"""By the operator's name."""
