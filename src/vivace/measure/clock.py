"""The only clocks of Vivace: the system's, a false one for tests, and device events for CUDA."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

Run = Callable[[int], Any]
"""Calls the program with the input of this index and returns its answer."""


class Clock(Protocol):
    """Something that tells the time."""

    def now(self) -> float:
        """Seconds since an arbitrary moment, never going backwards."""
        ...


class SystemClock:
    """The system's monotonic clock, in seconds; the resolution is a nanosecond, reading it takes some tens of them."""

    def now(self) -> float:
        """Seconds since an arbitrary moment."""
        return time.perf_counter_ns() * 1e-9


class FakeClock:
    """A clock for tests and rehearsals: each reading takes the next of the given steps, or `advance` moves it by hand.

    >>> clock = FakeClock([0.5, 0.25])
    >>> clock.now(), clock.now(), clock.now()
    (0.5, 0.75, 0.75)
    """

    def __init__(self, steps: Sequence[float] = ()) -> None:
        self._steps = list(steps)
        self._now = 0.0

    def now(self) -> float:
        """The time after the next step."""
        if self._steps:
            self._now += self._steps.pop(0)
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds


def time_calls(run: Run, indices: Sequence[int]) -> list[float]:
    """Seconds of each call on the host's clock. An answer is freed after its reading, outside the timed region."""
    read = time.perf_counter_ns
    seconds = []
    for index in indices:
        started = read()
        answer = run(index)
        stopped = read()
        del answer
        seconds.append((stopped - started) * 1e-9)
    return seconds


def time_in_one_go(many: Callable[[int], Any], calls: int) -> list[float]:
    """Seconds of calls that a program makes in one go, divided among them."""
    started = time.perf_counter_ns()
    many(calls)
    seconds = (time.perf_counter_ns() - started) * 1e-9
    return [seconds / calls] * calls


def time_device_calls(run: Run, indices: Sequence[int], cuda: Any = None) -> list[float]:
    """Seconds of each call until the device has finished, for a program that launches work on a CUDA device.

    A call is timed from before its launch on the host to the end of its work on the device: the larger of the host's
    reading after a synchronization and the distance of two device events. The device is idle when a call starts, so
    that a launch queue cannot hide the host's time; inputs rotate, so that the second-level cache holds another's.
    `cuda` is the module with Event and synchronize, torch.cuda unless a test gives its own.
    """
    if cuda is None:
        import torch  # not above: who only tells the time waits for nothing

        cuda = torch.cuda
    device = cuda
    first, last = device.Event(enable_timing=True), device.Event(enable_timing=True)
    read = time.perf_counter_ns
    seconds = []
    for index in indices:
        device.synchronize()
        started = read()
        first.record()
        answer = run(index)
        last.record()
        device.synchronize()
        stopped = read()
        del answer
        seconds.append(max((stopped - started) * 1e-9, first.elapsed_time(last) * 1e-3))  # elapsed_time is in ms
    return seconds


def time_device_block(run: Run, indices: Sequence[int], cuda: Any = None) -> list[float]:
    """Seconds of calls that need not wait for each other, such as training steps: all are launched, and the time until
    the device has finished is divided among them. `cuda` is as for `time_device_calls`."""
    if cuda is None:
        import torch  # not above: who only tells the time waits for nothing

        cuda = torch.cuda
    cuda.synchronize()
    started = time.perf_counter_ns()
    for index in indices:
        run(index)
    cuda.synchronize()
    seconds = (time.perf_counter_ns() - started) * 1e-9
    return [seconds / len(indices)] * len(indices)


@contextlib.contextmanager
def quiet_collector() -> Iterator[None]:
    """No garbage collection inside: what is alive is set aside (gc.freeze) so that it costs nothing later either."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
