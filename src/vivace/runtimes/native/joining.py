"""Values put together, and put into larger ones."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.fx import Node

from vivace.codegen.arrays import FLOAT, Index, Read, Value, dense, stored
from vivace.codegen.lowering import operator_of, shape_of
from vivace.codegen.operators import joins, views
from vivace.codegen.operators.sums import inside
from vivace.core.errors import NotApplicable
from vivace.runtimes.native.lowering import Program
from vivace.runtimes.native.windows import Bordered

MOST_OF_A_BAG = 128
"""Rows that are added up in one expression."""


def joined(program: Program, node: Node, values: Sequence[Value], dim: int = 0) -> Value:
    """cat: one after the other along an axis; what has nothing below zero stays so."""
    found = joins.joined(program, node, values, dim)
    known = [one.array is not None and program.is_nonnegative(one.array) for one in values if one.size]
    if all(known) and found.array is not None:
        program.nonnegative.add(found.array.name)
    return found


def padded(
    program: Program, node: Node, value: Value, pads: Sequence[int], mode: str = "constant", fill: Any = None
) -> Value:
    """pad: with one number around. Zeros around images are a convolution's own, where only these read
    them."""
    if mode != "constant":
        raise NotApplicable(f"there is no C for {node.target} but with a number around")
    if not any(pads):
        return value
    array = program.stored(value)
    source = stored(array)
    wider = views.padded(program, node, source, pads, fill)
    sides = [(0, 0)] * (len(wider.shape) - len(pads) // 2) + list(zip(pads[-2::-2], pads[::-2], strict=True))
    before, after = zip(*sides, strict=True)
    is_border = not fill and not any((*before[:2], *after[:2])) and min(pads) >= 0
    if is_border and len(sides) > 2 and all(operator_of(one) in ("conv1d", "conv2d") for one in node.users):
        return Bordered(
            wider.shape, wider.kind, wider.at, wider.reads, None, False, source.layout, inner=source,
            before=before[2:], after=after[2:],
        )  # fmt: skip
    made = program.stored(wider)
    if program.is_nonnegative(array) and not fill:
        program.nonnegative.add(made.name)
    return stored(made)


def padded_with(program: Program, node: Node, value: Value, pads: Sequence[int], fill: Any = 0) -> Value:
    """constant_pad_nd, which has no other mode."""
    return padded(program, node, value, pads, "constant", fill)


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


def bags(
    program: Program, node: Node, table: Value, numbers: Value, offsets: Value, scale: bool = False, mode: int = 0,
    sparse: bool = False, weights: Value | None = None, ends: bool = False, padding: int | None = None,
) -> list[Any]:  # fmt: skip
    """embedding_bag whose bags all hold as many rows: their sum (`mode` 0), perhaps weighted, or their mean (1)."""
    known = program.known(offsets)
    starts = [] if known is None else [*known.tolist(), *([] if ends else numbers.shape)]
    lengths = {after - before for before, after in itertools.pairwise(starts)}
    if len(lengths) != 1 or not 0 < max(lengths) <= MOST_OF_A_BAG or mode not in (0, 1) or padding not in (None, -1):
        raise NotApplicable(f"there is no C for {node.target} but for sums and means of short bags of one length")
    (length,) = lengths
    rows, places = stored(program.stored(table)), stored(program.stored(numbers))
    by = None if weights is None else stored(program.stored(weights))

    def element(index: Index) -> str:
        parts = []
        for k in range(length):
            place = (f"(({index[0]}) * {length} + {k})",)
            one = rows.at((inside(places.at(place), table.shape[0]), index[1]))
            parts.append(one if by is None else f"{one} * {by.at(place)}")
        added = f"({' + '.join(parts)})"
        return f"({added} * {1 / length!r}f)" if mode else added

    def reads(index: Index) -> tuple[Read, ...]:
        more = () if by is None else by.reads(("0",))
        return (*places.reads(("0",)), *rows.reads(("0", index[1])), *more)

    return [Value((len(starts) - 1, table.shape[1]), FLOAT, element, reads), None, None, None]


JOINING: Mapping[str, Callable[..., Any]] = {
    "cat": joined, "concat": joined, "pad": padded, "constant_pad_nd": padded_with,
    "flatten": flattened, "unflatten": flattened, "reshape": flattened, "as_strided": strided,
    "upsample_nearest1d": enlarged, "upsample_nearest2d": enlarged,
    "embedding_bag": bags,
}  # fmt: skip
"""By the operator's name."""
