"""A worker's service that measures what the machine can do, while nothing else is timed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vivace.devices.ceilings import measure_ceilings
from vivace.measure.clock import time_calls

SECONDS = 0.25
CALLS = 200


def fastest_seconds(kernel: Callable[[], object]) -> float:
    """Seconds of the fastest of many runs of a kernel, after a warm-up, in about a quarter of a second."""

    def run(_: int) -> object:
        return kernel()

    first = min(time_calls(run, range(2)))
    runs = min(CALLS, max(3, int(SECONDS / max(first, 1e-9))))
    return min(time_calls(run, range(runs)))


class Probe:
    """Answers with ceilings measured on the spot."""

    def ceilings(self, threads: Sequence[int], precisions: Sequence[str]) -> dict[str, Any]:
        """Ceilings for each count of threads, in about three seconds a count."""
        found = measure_ceilings(threads, fastest_seconds, precisions)
        return {"ceilings": [dataclasses.asdict(ceiling) for ceiling in found]}


def open_probe(arguments: Mapping[str, Any], payload: object | None = None) -> Probe:
    """The worker's entry."""
    return Probe()
