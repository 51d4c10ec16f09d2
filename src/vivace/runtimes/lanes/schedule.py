"""Which lane each operator of a graph runs on, so that a call is over as early as it can be."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

HANDOVER_SECONDS = 50e-6
"""What waiting for another lane costs: a thread is woken."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The lane of each operator in the graph's order, and how long a call takes by the operators' seconds."""

    lanes: tuple[int, ...]
    seconds: float


def scheduled(seconds: Sequence[float], needs: Sequence[Sequence[int]], count: int) -> Schedule:
    """Operators, in an order in which each comes after what it `needs`, spread over `count` lanes.

    Each goes where it can end first; a result that another lane waits for arrives `HANDOVER_SECONDS` later. Of equal
    ends, the lane of what it needs last is taken, so that a chain stays together.

    Source: list scheduling; Graham, Bounds on Multiprocessing Timing Anomalies, SIAM J. Appl. Math. 17, 1969.

    >>> scheduled([1, 1, 1, 1], [[], [0], [0], [1, 2]], 2).lanes
    (0, 0, 1, 0)
    """
    ends: list[float] = []
    lanes: list[int] = []
    free = [0.0] * count
    for own, before in zip(seconds, needs, strict=True):
        last = lanes[max(before, key=lambda one: ends[one])] if before else 0
        options = []
        for lane in range(count):
            ready = max((ends[one] + (HANDOVER_SECONDS if lanes[one] != lane else 0.0) for one in before), default=0.0)
            options.append((max(ready, free[lane]) + own, lane != last, lane))
        end, _, lane = min(options)
        free[lane] = end
        ends.append(end)
        lanes.append(lane)
    return Schedule(tuple(lanes), max(ends, default=0.0))


def pieces(lanes: Sequence[int], needs: Sequence[Sequence[int]]) -> list[int]:
    """The piece of each operator: operators of one lane that run without waiting or being waited for in between.

    A new piece begins where an operator needs something of another lane, and after one that another lane needs.

    >>> pieces((0, 0, 1, 0), [[], [0], [0], [1, 2]])
    [0, 1, 2, 3]
    >>> pieces((0, 0, 0), [[], [0], [1]])
    [0, 0, 0]
    """
    awaited = {one for number, before in enumerate(needs) for one in before if lanes[one] != lanes[number]}
    found: list[int] = []
    open_piece: dict[int, int] = {}
    count = 0
    for number, lane in enumerate(lanes):
        waits = any(lanes[one] != lane for one in needs[number])
        if waits or lane not in open_piece:
            open_piece[lane] = count
            count += 1
        found.append(open_piece[lane])
        if number in awaited:
            del open_piece[lane]
    return found


def staged(seconds: Sequence[float], count: int) -> Schedule:
    """Operators, in an order in which each comes after what it needs, cut into at most `count` stages one after the
    other, so that the longest takes as little as it can; `seconds` of the schedule are the longest stage's.

    Source: the partition of a chain; Hansen and Lih, Improved Algorithms for Partitioning Problems in Parallel,
    Pipelined and Distributed Computing, IEEE Transactions on Computers 41(6), 1992.

    >>> staged([1, 1, 1, 3, 2], 2)
    Schedule(lanes=(0, 0, 0, 1, 1), seconds=5)
    """
    sums = [0.0, *itertools.accumulate(seconds)]
    best: dict[int, tuple[float, tuple[int, ...]]] = {end: (sums[end], ()) for end in range(len(sums))}
    for _ in range(count - 1):
        best = {
            end: min((max(best[cut][0], sums[end] - sums[cut]), (*best[cut][1], cut)) for cut in range(end + 1))
            for end in range(len(sums))
        }
    longest, cuts = best[len(seconds)]
    lanes = tuple(sum(cut <= place for cut in cuts if cut > 0) for place in range(len(seconds)))
    return Schedule(lanes, longest)
