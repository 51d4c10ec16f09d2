"""The batch of a throughput: the smallest at which the original is about as quick a sample as it gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

MOST_SAMPLES = 1024
NEAR = 1.05
"""A batch is large enough when a sample takes at most this many times as long as in the best batch."""
LONGEST_CALL_SECONDS = 1.0
Pace = Callable[[list[Tensor]], float]
"""Seconds of one call of the original with these flat inputs."""


def paces(example: Sequence[Tensor], axes: Sequence[int | None], size: int, pace: Pace) -> dict[int, float]:
    """Seconds a sample for the example's batch size and its doubles, until a larger batch no longer helps.

    Stops after two doublings without a gain, at MOST_SAMPLES, and at calls longer than LONGEST_CALL_SECONDS.
    """
    found: dict[int, float] = {}
    count = size
    while count <= max(size, MOST_SAMPLES):
        seconds = pace(grown(example, axes, size, count))
        found[count] = seconds / count
        recent = list(found.values())[-3:]
        if seconds > LONGEST_CALL_SECONDS or (len(recent) == 3 and min(recent[1:]) * NEAR > recent[0]):
            break
        count *= 2
    return found


def best_batch(found: Mapping[int, float]) -> int:
    """The smallest batch that is about as quick a sample as the best.

    >>> best_batch({1: 1.0, 2: 0.6, 4: 0.41, 8: 0.4, 16: 0.42})
    4
    """
    least = min(found.values())
    return min(size for size, seconds in found.items() if seconds <= NEAR * least)


def grown(example: Sequence[Tensor], axes: Sequence[int | None], size: int, count: int) -> list[Tensor]:
    """The example with `count` samples instead of `size`, its own repeated.

    >>> grown([torch.tensor([1, 2])], [0], 2, 3)
    [tensor([1, 2, 1])]
    """
    rows = torch.arange(count) % size
    return [leaf if axis is None else leaf.index_select(axis, rows) for leaf, axis in zip(example, axes, strict=True)]


def told(found: Mapping[int, float], chosen: int) -> str:
    """A sentence on what was found."""
    shown = ", ".join(f"{size}: {1 / seconds:.4g}" for size, seconds in found.items())
    return f"throughput is measured with {chosen} samples a call; the original's samples a second by batch are {shown}"
