"""Where a synthesis is, and how long each step of it took."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vivace.core.errors import WorkerFailure
from vivace.core.measurement import Outcome
from vivace.measure.clock import Clock, SystemClock
from vivace.report.progress import Progress

SYSTEM = SystemClock()


class Allowance:
    """The whole time that a user allows a job, of which each step gets what is left."""

    def __init__(self, seconds: float, clock: Clock = SYSTEM) -> None:
        self.seconds = seconds
        self._clock = clock
        self._started = self._clock.now()

    def left(self, kept: float = 0.0) -> float:
        """Seconds for the next step, when `kept` of the whole are for later ones. Raises WorkerFailure where none are.

        >>> 0 < Allowance(60.0).left(kept=0.5) <= 30
        True
        """
        seconds = self.seconds * (1 - kept) - (self._clock.now() - self._started)
        if seconds < 1.0:
            raise WorkerFailure(Outcome.TIMEOUT, f"the {self.seconds:g} seconds of time (--time) are over; allow more")
        return seconds


class Steps:
    """Tells where the job is, and how long each step took."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._clock = SystemClock()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str, detail: str = "") -> Iterator[None]:
        """One step."""
        self._progress.stage(name, detail)
        with self.timed(name):
            yield

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """What happens inside counts as this step."""
        started = self._clock.now()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + self._clock.now() - started

    def tell(self, name: str, detail: str) -> None:
        """Where the job is."""
        self._progress.stage(name, detail)

    def note(self, text: str) -> None:
        """Something worth reading now."""
        self._progress.note(text)
