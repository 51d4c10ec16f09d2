"""The steps of a synthesis: told to whoever watches, and timed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vivace.measure.clock import SystemClock
from vivace.report.progress import Progress


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
        started = self._clock.now()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + self._clock.now() - started

    def note(self, text: str) -> None:
        """Something worth reading now."""
        self._progress.note(text)
