"""Servers compared: two in alternating slices, and one under load with itself unloaded."""

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


@dataclasses.dataclass(frozen=True)
class Tail:
    """The p99 under load over the p50 and over the p99 of a lone client: 3.0 is three times as late."""

    over_p50: float
    over_p99: float


def tail(unloaded: Slice, loaded: Slice) -> Tail | None:
    """How much later the last hundredth of the answers comes under load; None where either saw too few for a p99.

    >>> found = tail(Slice(1.0, (0.001,) * 700, {}), Slice(1.0, (0.003,) * 700, {}))
    >>> round(found.over_p50, 9), round(found.over_p99, 9)
    (3.0, 3.0)
    """
    if not unloaded.latencies or not loaded.latencies:
        return None
    (p50, _, p99), (*_, late) = unloaded.quantiles(), loaded.quantiles()
    if p99.high_seconds is None or late.high_seconds is None:
        return None
    return Tail(late.seconds / p50.seconds, late.seconds / p99.seconds)


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
