"""The watchdog: what must go on says so again and again, and silence is noticed by whoever asks."""

from __future__ import annotations

from vivace.measure.clock import Clock


class Pulse:
    """Alive while `beat` was called within `silence_seconds`."""

    def __init__(self, clock: Clock, silence_seconds: float) -> None:
        self._clock = clock
        self._silence_seconds = silence_seconds
        self._last = clock.now()

    def beat(self) -> None:
        """Say that it goes on."""
        self._last = self._clock.now()

    @property
    def is_alive(self) -> bool:
        """Whether it said so lately."""
        return self._clock.now() - self._last <= self._silence_seconds
