"""Two servers in alternating slices: how much faster the second one serves, beside how much faster its model is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from vivace.core.measurement import Interval
from vivace.measure.stats import hodges_lehmann
from vivace.serve.load.drive import Slice

Drive = Callable[[], Slice]
ORDER = (0, 1, 1, 0)


@dataclasses.dataclass(frozen=True)
class Served:
    """What alternating slices saw of an original and another: all slices of each, and the ratio of answers a second."""

    original: tuple[Slice, ...]
    other: tuple[Slice, ...]
    speedup: Interval


def alternate(original: Drive, other: Drive, blocks: int) -> Served:
    """Drive both by turns (ABBA), `blocks` times.

    The speed-up is the Hodges-Lehmann estimate of the blocks' log ratios of good answers a second, with its 95%
    interval; under 6 blocks there is none, and its bounds are 0 and infinity. Raises ValueError where one gave none.
    """
    slices: tuple[list[Slice], list[Slice]] = ([], [])
    ratios = []
    for _ in range(blocks):
        first = (len(slices[0]), len(slices[1]))
        for which in ORDER:
            slices[which].append((original, other)[which]())
        rates = [_rate(found[start:]) for found, start in zip(slices, first, strict=True)]
        if not all(rates):
            raise ValueError("a server gave no good answer in a whole block")
        ratios.append(math.log(rates[1] / rates[0]))
    found = hodges_lehmann(ratios)
    return Served(
        tuple(slices[0]), tuple(slices[1]), Interval(math.exp(found.value), math.exp(found.low), _exp(found.high))
    )


def joined(slices: Sequence[Slice]) -> Slice:
    """Several slices as one."""
    codes: dict[int, int] = {}
    for one in slices:
        for code, count in one.codes.items():
            codes[code] = codes.get(code, 0) + count
    latencies = tuple(seconds for one in slices for seconds in one.latencies)
    return Slice(sum(one.seconds for one in slices), latencies, codes, sum(one.lost for one in slices))


def _rate(slices: Sequence[Slice]) -> float:
    return joined(slices).per_second


def _exp(value: float) -> float:
    return math.inf if math.isinf(value) else math.exp(value)
