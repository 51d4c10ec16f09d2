"""Which dimension counts samples: found by running a doubled batch and seeing what doubles."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

Axis = int | None
_UNEQUAL_SIZES = (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97)
_TOLERANCE = {torch.float16: 2e-2, torch.bfloat16: 4e-2, torch.float64: 1e-8}
_COARSE = 0.1


@dataclasses.dataclass(frozen=True)
class Axes:
    """The batch axis of each flat input and each flat output; None where there is none."""

    inputs: tuple[Axis, ...]
    outputs: tuple[Axis, ...]


def find(function: Callable[..., Sequence[Tensor]], example: Sequence[Tensor], plain: Sequence[Tensor]) -> Axes | None:
    """The batch axes of a function of flat tensors, or None.

    The batch is doubled with other rows (each sample reversed along its own dimensions) along axis 0 and then 1 of the
    tensors that share its size. Where that fails, integers keep their places in the sample: columns of categories may
    have tables of different lengths. Every output must double along one axis, or be the same constant, and the answers
    to each half must be those of that half alone: a recurrent model's time axis doubles too, but its second half then
    depends on the first.
    """
    for axes in _candidates(example):
        answered = _answered(function, example, axes) or _answered(function, example, axes, integers_in_place=True)
        if answered is None:
            continue
        doubled, second = answered
        size = next(leaf.shape[axis] for leaf, axis in zip(example, axes, strict=True) if axis is not None)
        outputs = [_grown(*answers, size) for answers in zip(plain, second, doubled, strict=True)]
        if all(ok for ok, _ in outputs) and any(axis is not None for _, axis in outputs):
            return Axes(tuple(axes), tuple(axis for _, axis in outputs))
    return None


def _answered(
    function: Callable[..., Sequence[Tensor]], example: Sequence[Tensor], axes: Sequence[Axis],
    integers_in_place: bool = False,
) -> tuple[Sequence[Tensor], Sequence[Tensor]] | None:  # fmt: skip
    """What a doubled batch and its second half alone are answered with; None where the function fails."""
    try:
        with torch.no_grad():
            inputs = [_doubled(leaf, axis, integers_in_place) for leaf, axis in zip(example, axes, strict=True)]
            halves = [_second_half(leaf, axis) for leaf, axis in zip(inputs, axes, strict=True)]
            return function(*inputs), function(*halves)
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError):
        return None


def resized(leaves: Sequence[Tensor], axes: Sequence[Axis], size: int) -> list[Tensor]:
    """The same call with `size` samples: rows are repeated from the start."""
    return [
        leaf if axis is None else leaf.index_select(axis, torch.arange(size, device=leaf.device) % leaf.shape[axis])
        for leaf, axis in zip(leaves, axes, strict=True)
    ]


def unlike_size(leaves: Sequence[Tensor]) -> int:
    """A number of samples unlike every dimension of these tensors, as tracers take equal sizes for one."""
    taken = {n for leaf in leaves for n in leaf.shape}
    return next(n for n in _UNEQUAL_SIZES if n not in taken)


def close(want: Tensor, got: Tensor, coarse: bool = False) -> bool:
    """Whether two tensors agree to rounding, relative to the largest value; NaN agrees with NaN.

    `coarse` says that the values inside were rounded to 16 bits or quantized, whatever the answer's own dtype is: two
    right orders of the same operators then differ by a step of that grid.
    """
    if want.shape != got.shape:
        return False
    if not want.dtype.is_floating_point:
        return bool(torch.equal(want, got))
    if want.numel() == 0:
        return True
    tolerance = _COARSE if coarse else _TOLERANCE.get(want.dtype, 1e-4)
    want, got = want.detach().double(), got.detach().double()
    scale = torch.nan_to_num(want, posinf=0.0, neginf=0.0).abs().max().item()
    return bool(torch.allclose(want, got, rtol=tolerance, atol=tolerance * scale + 1e-7, equal_nan=True))


def _candidates(example: Sequence[Tensor]) -> Iterator[tuple[Axis, ...]]:
    seen: set[tuple[Axis, ...]] = set()
    for first in (0, 1):
        size = next((leaf.shape[first] for leaf in example if leaf.dim() > first), None)
        if size is None:
            continue
        same = tuple(first if leaf.dim() > first and leaf.shape[first] == size else None for leaf in example)
        mixed = tuple(
            next((a for a in (first, 1 - first) if leaf.dim() > a and leaf.shape[a] == size), None) for leaf in example
        )
        lone = tuple(axis if i == same.index(first) else None for i, axis in enumerate(same))
        for axes in (same, mixed, lone):
            if axes not in seen:
                seen.add(axes)
                yield axes


def _doubled(leaf: Tensor, axis: Axis, integers_in_place: bool) -> Tensor:
    if axis is None:
        return leaf
    is_moved = leaf.dtype.is_floating_point or not integers_in_place
    reversed_rows = leaf.flip([i for i in range(leaf.dim()) if i != axis and is_moved])
    if leaf.dtype.is_floating_point:
        reversed_rows = reversed_rows * 0.75
    return torch.cat([leaf, reversed_rows.roll(1, axis)], dim=axis)


def _second_half(leaf: Tensor, axis: Axis) -> Tensor:
    return leaf if axis is None else leaf.narrow(axis, leaf.shape[axis] // 2, leaf.shape[axis] // 2)


def _grown(first: Tensor, second: Tensor, both: Tensor, size: int) -> tuple[bool, Axis]:
    """Whether an output is right for a doubled batch, given those of its halves, and along which axis it grew."""
    if both.dim() != first.dim() or second.shape != first.shape:
        return False, None
    grown = [i for i in range(first.dim()) if both.shape[i] != first.shape[i]]
    if not grown:
        return close(first, both), None
    if len(grown) > 1 or first.shape[grown[0]] != size or both.shape[grown[0]] != 2 * size:
        return False, None
    axis = grown[0]
    right = close(first, both.narrow(axis, 0, size)) and close(second, both.narrow(axis, size, size))
    return right, axis
