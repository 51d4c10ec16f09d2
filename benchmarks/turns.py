"""Two things timed in turns in one process: how many times as fast the second one is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vivace.measure.stats import hodges_lehmann


def ratio(one: Callable[[], float], other: Callable[[], float], blocks: int) -> dict[str, float]:
    """The seconds of one over those of the other, with a 95% interval, from blocks that take turns (ABBA)."""
    logs = []
    for _ in range(blocks):
        first, second, third, fourth = one(), other(), other(), one()
        logs.append(0.5 * (np.log(first / second) + np.log(fourth / third)))
    found = hodges_lehmann(logs)
    low, value, high = (float(np.exp(log)) for log in (found.low, found.value, found.high))
    return {"value": value, "low": low, "high": high}
