"""What is asked of a document's candidates: which won, their speeds, their loss of quality."""

from __future__ import annotations

import dataclasses

from vivace.core.measurement import Interval, seconds_at
from vivace.core.quality import Quality
from vivace.report.results import ResultDocument, TrialDocument


@dataclasses.dataclass(frozen=True)
class Scored:
    """How a loss of quality is told: `unit` with the `factor` that makes it, and whether it is of scores.

    Without scores it is the share of decisions that differ from the original's.
    """

    title: str
    unit: str
    factor: float
    is_of_scores: bool

    def of(self, quality: Quality | None) -> tuple[float, float | None] | None:
        """The loss and its upper bound, in the unit; None where it was not judged in this way."""
        if quality is None:
            return None
        if self.is_of_scores:
            value, upper = quality.drop, quality.drop_upper
        else:
            agreed, least = (
                (quality.fidelity.agreement, quality.fidelity.agreement_low) if quality.fidelity else (None,) * 2
            )
            value, upper = (None if share is None else 1 - share for share in (agreed, least))
        return None if value is None else (value * self.factor, None if upper is None else upper * self.factor)


def scored_by(document: ResultDocument) -> Scored:
    """By scores where any candidate has some, in points where they are shares; else by decisions that differ."""
    judged = [trial.quality for trial in document.candidates if trial.quality and trial.quality.drop is not None]
    if not judged:
        return Scored("decisions that differ from the original's", "%", 100.0, False)
    if all(0 <= (quality.baseline or 0.0) <= 1 for quality in judged):
        return Scored("drop of the score against the original", "percentage points", 100.0, True)
    return Scored("drop of the score against the original", "units of the metric", 1.0, True)


def margin_of(document: ResultDocument) -> float | None:
    """What may be lost, from the verdicts on candidates; the original's own has none."""
    margins = (trial.quality.margin for trial in document.candidates if trial.quality is not None)
    return next(margins, document.quality.margin or None)


def seconds_of(document: ResultDocument, trial: TrialDocument) -> Interval | None:
    """A candidate's time on the confirmed original's axis; None where it was not timed."""
    speed = speed_of(trial)
    return None if speed is None else seconds_at(document.comparison.baseline.median_seconds, speed)


def is_slower(trial: TrialDocument) -> bool:
    """Whether the whole interval of its speed-up is below 1."""
    speed = speed_of(trial)
    return speed is not None and speed.high < 1


def speed_of(trial: TrialDocument) -> Interval | None:
    """A trial's speed-up: confirmed where it was, else from the race."""
    return trial.confirmed.speedup if trial.confirmed else trial.speedup


def winner_of(document: ResultDocument) -> TrialDocument | None:
    """The trial whose plan won; None where the original was kept."""
    return next((trial for trial in document.candidates if trial.plan == document.plan and document.plan), None)
