"""A worker's service that measures what the machine can do, while nothing else is timed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vivace.devices.ceilings import measure_ceilings, measure_device_ceiling
from vivace.measure.clock import time_calls, time_device_calls

SECONDS = 0.25
CALLS = 200


def fastest_seconds(kernel: Callable[[], object], within: float = SECONDS) -> float:
    """Seconds of the fastest of many runs of a kernel, after a warm-up, in about so many seconds."""
    return _fastest(kernel, time_calls, within)


def fastest_device_seconds(kernel: Callable[[], object], within: float = SECONDS) -> float:
    """The same of a kernel on a CUDA device, until the device has finished."""
    return _fastest(kernel, time_device_calls, within)


def _fastest(
    kernel: Callable[[], object], timed: Callable[[Callable[[int], object], range], list[float]], within: float
) -> float:
    def run(_: int) -> object:
        return kernel()

    first = min(timed(run, range(2)))
    runs = min(CALLS, max(3, int(within / max(first, 1e-9))))
    return min(timed(run, range(runs)))


class Probe:
    """Answers with ceilings measured on the spot."""

    def ceilings(
        self, threads: Sequence[int], precisions: Sequence[str], on_device: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Ceilings for each count of threads, in about three seconds a count, and of the CUDA device in the precisions
        `on_device`, where there are any."""
        found = list(measure_ceilings(threads, fastest_seconds, precisions))
        if on_device:
            found.append(measure_device_ceiling(fastest_device_seconds, on_device))
        return {"ceilings": [dataclasses.asdict(ceiling) for ceiling in found]}


def open_probe(arguments: Mapping[str, Any], payload: object | None = None) -> Probe:
    """The worker's entry."""
    return Probe()
