"""Which of two kernels is faster in this process, by interleaved blocks of calls: for choices made while building."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from vivace.core.measurement import Interval
from vivace.measure import stats
from vivace.measure.clock import quiet_collector, time_calls

Kernel = Callable[[], Any]
BLOCKS = 12
BLOCK_SECONDS = 0.002
MOST_CALLS = 200
WARM_CALLS = 3
_ABBA = (0, 1, 1, 0)


def speedup(baseline: Kernel, candidate: Kernel, blocks: int = BLOCKS) -> Interval:
    """How many times faster the candidate is than the baseline, with its 95% interval.

    Each block runs ABBA and gives ln(median of A / median of B); the estimate is that of Hodges and Lehmann over the
    blocks, as between arms in processes of their own (`measure.paired`). Both kernels share this process, its caches
    and its threads, so the number chooses a kernel and is never a headline.

    >>> speedup(lambda: sum(range(2000)), lambda: sum(range(20))).low > 1
    True
    """
    kernels = (baseline, candidate)
    counts = tuple(_calls(kernel) for kernel in kernels)
    logs = []
    with quiet_collector():
        for _ in range(blocks):
            seconds: tuple[list[float], list[float]] = ([], [])
            for side in _ABBA:
                seconds[side].extend(_times(kernels[side], counts[side]))
            logs.append(math.log(_median(seconds[0]) / _median(seconds[1])))
    found = stats.hodges_lehmann(logs)
    return Interval(math.exp(found.value), math.exp(found.low), math.exp(found.high))


def _calls(kernel: Kernel) -> int:
    """How many calls fill a sub-block."""
    once = _median(_times(kernel, WARM_CALLS))
    return max(1, min(MOST_CALLS, math.ceil(BLOCK_SECONDS / once)))


def _times(kernel: Kernel, count: int) -> list[float]:
    return time_calls(lambda _: kernel(), range(count))


def _median(seconds: list[float]) -> float:
    return sorted(seconds)[len(seconds) // 2]
