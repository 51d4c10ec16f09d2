"""How fast this machine moves working sets of several sizes: what fits into a cache is not moved from memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from vivace.core.training.bound import Bandwidth
from vivace.devices.caches import last_level_bytes
from vivace.devices.ceilings import SecondsOf, copy, copy_rate, threads

SIZES = tuple(1 << power for power in (18, 20, 22, 24, 26, 28))
"""Bytes of source and target together."""
DEVICE_SIZES = tuple(1 << power for power in (22, 24, 26, 28, 30))
MOST_BYTES = 1 << 30


def measure_bandwidths(seconds_of: SecondsOf, device: str = "cpu") -> tuple[Bandwidth, ...]:
    """Copies, and changes in place, of working sets of several sizes, the smallest first, with up to as many threads as
    this process has; the largest is far beyond the last-level cache, up to 1 GB."""
    sizes = list(DEVICE_SIZES if device == "cuda" else SIZES)
    while device == "cpu" and sizes[-1] < min(MOST_BYTES, 4 * (last_level_bytes() or 0)):
        sizes.append(2 * sizes[-1])
    return rising([_measured(size, seconds_of, device) for size in sizes])


def rising(found: Sequence[Bandwidth]) -> tuple[Bandwidth, ...]:
    """The same, where a smaller working set is never slower than a larger one: its copy is so short that its launch, or
    whoever else uses the machine, would be measured.

    >>> [one.gigabytes_per_second for one in rising([Bandwidth(1, 5.0, 1.0), Bandwidth(2, 9.0, 2.0)])]
    [9.0, 9.0]
    """
    best, best_new, told = 0.0, 0.0, []
    for one in reversed(found):
        best = max(best, one.gigabytes_per_second)
        best_new = max(best_new, one.new_gigabytes_per_second)
        told.append(Bandwidth(one.working_set_bytes, best, min(best, best_new)))
    return tuple(reversed(told))


def seconds_to_move(moved_bytes: float, within: float, known: Sequence[Bandwidth], is_new: bool = False) -> float:
    """Seconds that so many bytes take within a working set of `within` bytes, between two measured sizes by the
    logarithm of the size; `is_new` for what is written to a tensor that was made for it.

    >>> known = [Bandwidth(1 << 20, 40.0, 40.0), Bandwidth(1 << 24, 10.0, 5.0)]
    >>> seconds_to_move(1e9, 1 << 22, known), seconds_to_move(1e9, 1 << 30, known, is_new=True)
    (0.04, 0.2)
    """
    rates = [one.new_gigabytes_per_second if is_new else one.gigabytes_per_second for one in known]
    place = math.log2(max(within, 1.0))
    marks = [math.log2(one.working_set_bytes) for one in known]
    if place <= marks[0]:
        return moved_bytes / (rates[0] * 1e9)
    for (low, first), (high, second) in zip(zip(marks, rates, strict=True), zip(marks[1:], rates[1:], strict=True),
                                         strict=False):  # fmt: skip
        if place <= high:
            share = (place - low) / (high - low)
            return moved_bytes / ((first + share * (second - first)) * 1e9)
    return moved_bytes / (rates[-1] * 1e9)


def _measured(size: int, seconds_of: SecondsOf, device: str) -> Bandwidth:
    """The best of all threads and of one, which waits for no other."""
    half = size // 2
    source, whole = torch.ones(half // 4, device=device), torch.ones(size // 4, device=device)
    fastest: list[float] = []
    for kernel in (copy(half, device), lambda: whole.mul_(1.0), source.clone):
        taken = [seconds_of(kernel)]
        if device == "cpu" and torch.get_num_threads() > 1:
            with threads(1):
                taken.append(seconds_of(kernel))
        fastest.append(min(taken))
    copied, changed, made = fastest
    held = max(copy_rate(half, copied), copy_rate(size, changed))
    writing = max(made - half / (held * 1e9), half / (held * 1e9))  # reading goes as fast as from held memory
    return Bandwidth(size, held, half / writing / 1e9)
