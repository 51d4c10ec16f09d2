"""Images and sequences in another size: each place lies between those around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from vivace.codegen.arrays import FLOAT, Array, Value, stored
from vivace.codegen.lowering import shape_of
from vivace.core.errors import NotApplicable
from vivace.runtimes.native import images
from vivace.runtimes.native.lowering import Program


def interpolated(
    program: Program, node: Node, value: Value, size: Any, align_corners: bool = False, *factors: Any
) -> Value:
    """upsample_linear1d, upsample_bilinear2d: between two places along each axis, by how near they are."""
    array, shape = program.stored(value), shape_of(node)
    if array.kind != FLOAT:
        raise NotApplicable(f"there is no C for {node.target} of whole numbers")
    n, channels, *counts = shape
    each = factors[0] if factors and isinstance(factors[0], list | tuple) else factors
    given = [*each, *[None] * (len(counts) - len(each))]
    to = images.channels_last(program, shape)
    part, heads, names = images.each_place(program, n, counts)
    begins, lows, highs = [], [], []
    for axis, name in enumerate(names):
        low, high, share = places(array.shape[2 + axis], counts[axis], align_corners, given[axis])
        lows.append(f"{program.table(low.tolist())}[{name}]")
        highs.append(f"{program.table(high.tolist())}[{name}]")
        begins.append(f"const float near{axis} = {program.kept(share)}[{name}];")
    text = (
        f"  {{ {part}\n"
        f"    {heads} {{ {' '.join(begins)}\n"
        f'      _Pragma("omp simd") for (long c = 0; c < {channels}; c++)\n'
        f"        {to.at(('i', 'c', *names))} = {_between(array, lows, highs)}; }} }}"
    )
    images.add_each_place(program, text, array, to)
    return stored(to)


def places(length: int, count: int, align_corners: bool, factor: float | None) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `count` places along an axis the two of `length` that it lies between, and the second one's share, as
    PyTorch computes them (`factor` is how many times as long the axis was asked to become).

    >>> [one.tolist() for one in places(2, 4, False, None)]
    [[0, 0, 0, 1], [1, 1, 1, 1], [0.0, 0.25, 0.75, 0.25]]
    """
    number = torch.arange(count, dtype=torch.float32)
    if align_corners:
        at = number * torch.tensor((length - 1) / (count - 1) if count > 1 else 0.0)
    else:
        at = ((number + 0.5) * torch.tensor(1 / factor if factor else length / count) - 0.5).clamp(min=0)
    low = at.floor().long().clamp(max=length - 1)
    return low, (low + 1).clamp(max=length - 1), (at - low).clamp(0, 1)


def _between(array: Array, lows: Sequence[str], highs: Sequence[str], chosen: Sequence[str] = ()) -> str:
    """C of an element between those at `lows` and at `highs` of each axis; the first axes' are chosen."""
    axis = len(chosen)
    if axis == len(lows):
        return array.at(("i", "c", *chosen))
    first, second = (_between(array, lows, highs, (*chosen, one[axis])) for one in (lows, highs))
    return f"((1.0f - near{axis}) * {first} + near{axis} * {second})"


RESIZING: Mapping[str, Callable[..., Any]] = {
    "upsample_linear1d": interpolated, "upsample_bilinear2d": interpolated,
}  # fmt: skip
"""By the operator's name."""
