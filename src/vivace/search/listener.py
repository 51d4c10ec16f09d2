"""What a search tells while it runs, without knowing who listens."""

from __future__ import annotations

from typing import Protocol

from vivace.core.measurement import Interval, Outcome
from vivace.core.plan import Plan


class Listener(Protocol):
    """`report.progress.Progress` is one. Every method returns at once."""

    def stage(self, name: str, detail: str = "") -> None:
        """A stage began."""

    def trial(
        self, plan: Plan | str, outcome: Outcome, speedup: Interval | None, best: Interval | None, left_seconds: float
    ) -> None:
        """One plan was tried."""

    def note(self, text: str) -> None:
        """Something worth reading now."""
