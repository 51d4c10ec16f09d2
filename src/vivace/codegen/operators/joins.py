"""Operators that put values together, and that cut them in parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.fx import Node

from vivace.codegen.arrays import Array, Index, Read, Value, stored
from vivace.codegen.lowering import Lowering, kind_of, shape_of
from vivace.codegen.operators import views
from vivace.codegen.statements import Statement, loop


def joined(lowering: Lowering, node: Node, values: Sequence[Value], dim: int = 0) -> Value:
    """cat: one after the other along an axis."""
    shape, axis = shape_of(node), dim % len(shape_of(node))
    values = [one for one in values if one.size] or list(values[:1])
    to = lowering.room(shape, kind_of(node), values[0].layout if len(values[0].shape) == len(shape) else None)
    texts, reads, first = [], list[Read](), 0
    for value in values:
        part = Array(to.name, value.shape, to.strides, to.kind, to.offset + first * to.strides[axis])
        made = loop(part, value, lowering.threads)
        texts.append(made.text)
        reads += made.reads
        first += value.shape[axis]
    is_split = all(len(value.shape) and value.shape[to.outer or 0] == shape[to.outer or 0] for value in values)
    written = to.divided() if is_split and to.outer is not None and to.outer != axis else Read(to.name, None)
    lowering.statements.append(Statement("\n".join(texts), tuple(reads), (written,)))
    return stored(to)


def stacked(lowering: Lowering, node: Node, values: Sequence[Value], dim: int = 0) -> Value:
    """stack: side by side along a new axis."""
    place = dim % len(shape_of(node))
    return joined(lowering, node, [views.wider(one, place) for one in values], place)


def parts(lowering: Lowering, node: Node, value: Value, *arguments: Any, **_: Any) -> list[Value]:
    """chunk, split, tensor_split, unbind: as many parts as the operator gives."""
    value = stored(lowering.stored(value))
    is_unbind = "unbind" in str(node.target)
    dim = (arguments[0] if is_unbind else arguments[1] if len(arguments) > 1 else 0) if arguments else 0
    dim = int(node.kwargs.get("dim", dim)) % len(value.shape)  # type: ignore[arg-type]
    found, first = [], 0
    for one in node.meta["val"]:
        shape = tuple(int(size) for size in one.shape)
        found.append(_part(value, shape, dim, first, is_unbind))
        first += 1 if is_unbind else shape[dim]
    return found


def _part(value: Value, shape: tuple[int, ...], dim: int, first: int, is_less: bool) -> Value:
    """What lies of a stored value from one place of an axis on; `is_less`: at that place, without the axis."""
    array = value.array
    assert array is not None
    strides = (*array.strides[:dim], *array.strides[dim + 1 :]) if is_less else array.strides
    return stored(Array(array.name, shape, strides, array.kind, array.offset + first * array.strides[dim]))


def repeated(lowering: Lowering, node: Node, value: Value, *_: Any, **__: Any) -> Value:
    """repeat: so many times along each axis, and along new ones."""
    shape = shape_of(node)
    source = stored(lowering.stored(value))
    more = len(shape) - len(source.shape)

    def back(index: Index) -> Index:
        return tuple(
            place if size == whole else f"(({place})%{size})"
            for place, size, whole in zip(index[more:], source.shape, shape[more:], strict=True)
        )

    return Value(shape, kind_of(node), lambda i: source.at(back(i)), lambda i: source.reads(back(i)))


JOINS: Mapping[str, Callable[..., Any]] = {
    "cat": joined, "concat": joined, "stack": stacked, "chunk": parts, "split": parts, "split_with_sizes": parts,
    "tensor_split": parts, "unbind": parts, "unsafe_split": parts, "unsafe_chunk": parts,
    "repeat": repeated,
}  # fmt: skip
"""By the operator's name."""
