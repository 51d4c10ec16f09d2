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
        blocks_of = [joined(found[start:]) for found, start in zip(slices, first, strict=True)]
        for name, block in zip(("the original", "the other"), blocks_of, strict=True):
            if not block.latencies:
                raise ValueError(f"{name} gave no good answer in a whole block: {dict(block.codes)}, {block.lost} lost")
        ratios.append(math.log(blocks_of[1].per_second / blocks_of[0].per_second))
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


def _exp(value: float) -> float:
    return math.inf if math.isinf(value) else math.exp(value)
