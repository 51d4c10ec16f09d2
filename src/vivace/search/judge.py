"""Judging a candidate's answers: a float64 referee for what only rounds, the metric or fidelity for what changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from vivace.core.errors import DiskFull, EnvironmentFault, UsageError, WorkerFailure
from vivace.core.measurement import Outcome
from vivace.core.quality import Budget, Gate, Quality, QualityVerdict
from vivace.core.technique import Effect
from vivace.data.samples import StoredOutputs, read_outputs
from vivace.measure import fidelity, gate
from vivace.search.evaluation import Evaluation, Metric

REFEREE_BASIS = "float64 referee: error at most twice the original's own"
SAME_OUTPUTS_SQNR_DB = 60.0
"""What an exact or rounded plan must reach against the original where no float64 referee could be had."""
SHAPE_SPREAD_DB = 10.0
"""A plan that changes answers may do so by this much more in one shape of a mix than in another; what is below
`fidelity.LEAST_SQNR_DB` beyond that is wrong in this shape, whatever the metric says of all samples together."""

Answers = list[list[Tensor]]


HOPEFUL = 1.3
"""A sample-size estimate is rough: up to this many times what there is, a candidate stays in the race."""


@dataclasses.dataclass(frozen=True)
class Group:
    """So many of the referee's calls, which are of one shape; `shape` is empty where calls come in one shape only."""

    shape: str
    calls: int


@dataclasses.dataclass(frozen=True)
class Referee:
    """What the original answers to some stored calls, and in float64 (`exact`; None where it has no float64).

    `groups` are the calls by their shape, in order: each is judged apart.
    """

    calls: Path
    original: Path
    exact: Path | None
    axes: Sequence[int | None]
    groups: Sequence[Group]

    def parts(self, *answers: StoredOutputs) -> Iterator[tuple[Group, tuple[Answers, ...]]]:
        """Each group with its part of all these answers. A missing or extra call is told as a wrong output."""
        lists = [list(one) for one in answers]
        if {len(one) for one in lists} != {sum(group.calls for group in self.groups)}:
            raise WorkerFailure(Outcome.WRONG_OUTPUT, "the number of calls differs from the original's")
        start = 0
        for group in self.groups:
            yield group, tuple(one[start : start + group.calls] for one in lists)
            start += group.calls


@dataclasses.dataclass(frozen=True)
class Rules:
    """How quality is judged. `metric` None means fidelity; `alpha` is the error allowed for one verdict."""

    budget: Budget
    gate: Gate
    metric: Metric | None
    alpha: float = 0.05


def judge(part: Evaluation, outputs: StoredOutputs, effect: Effect, rules: Rules) -> Quality:
    """The verdict on a candidate's answers to one part of the data.

    A plan that only rounds was passed by the referee before; the metric can still refuse it, but too few samples
    cannot leave it undecided.
    """
    close = fidelity.compare_outputs(part.original_outputs(), outputs, part.axes)
    if rules.metric is None or rules.gate is Gate.FIDELITY:
        quality = fidelity.judge_fidelity(close, rules.budget.drop)
    else:
        baseline = part.scores(part.original_outputs(), rules.metric)
        candidate = part.scores(outputs, rules.metric)
        margin = rules.budget.margin(float(baseline.double().mean()))
        quality = gate.judge_scores(baseline, candidate, margin, gate=rules.gate, alpha=rules.alpha)
    if effect is not Effect.CHANGED and quality.verdict is QualityVerdict.CANNOT_TELL:
        most = "" if quality.drop_upper is None else f"; by the metric alone the drop is below {quality.drop_upper:.4g}"
        quality = dataclasses.replace(
            quality,
            verdict=QualityVerdict.HELD,
            basis=REFEREE_BASIS,
            samples_needed=None,
            samples_hoped=None,
            reason=f"it only rounds, as the referee found{most}",
        )
    return dataclasses.replace(quality, fidelity=close)


def judge_decisions(part: Evaluation, outputs: StoredOutputs, effect: Effect, rules: Rules) -> Quality:
    """The verdict, with the decisions that changed."""
    quality, original, gains = judge(part, outputs, effect, rules), part.original_outputs(), None
    if rules.metric is not None:
        gains = (part.scores(outputs, rules.metric) - part.scores(original, rules.metric)).tolist()
    return dataclasses.replace(quality, decisions=fidelity.decisions_of(original, outputs, part.axes, gains))


def refuse(referee: Referee, outputs: StoredOutputs, effect: Effect) -> str | None:
    """Why a plan's answers are wrong, with the shape where calls come in several; None when they are right.

    A plan that only rounds is judged in each shape. One that may change answers must not be wrong in one shape while it
    is right in another; whether its answers are good enough is for the gate to say.
    """
    original = read_outputs(referee.original)
    if effect is Effect.CHANGED:
        return _uneven(referee, original, outputs) if len(referee.groups) > 1 else None
    exact = original if referee.exact is None else read_outputs(referee.exact)
    for group, (ours, plain, found) in referee.parts(exact, original, outputs):
        reason = _wrong(None if referee.exact is None else ours, plain, found, referee.axes)
        if reason:
            return f"for {group.shape}: {reason}" if group.shape else reason
    return None


def _wrong(exact: Answers | None, original: Answers, found: Answers, axes: Sequence[int | None]) -> str | None:
    """Why the answers of a plan that only rounds are wrong."""
    if exact is not None:
        passed, reason = fidelity.referee(exact, original, found, axes)
        return None if passed else reason
    close = fidelity.compare_outputs(original, found, axes)
    if close.sqnr_db >= SAME_OUTPUTS_SQNR_DB:
        return None
    return (
        f"outputs differ from the original's by {close.sqnr_db:.1f} dB SQNR; a plan that only rounds must reach "
        f"{SAME_OUTPUTS_SQNR_DB:g} dB"
    )


def _uneven(referee: Referee, original: StoredOutputs, outputs: StoredOutputs) -> str | None:
    """In which shape the answers of a plan that may change them are far worse than in another."""
    sqnr_db: dict[str, float] = {}
    for group, (plain, found) in referee.parts(original, outputs):
        try:
            sqnr_db[group.shape] = fidelity.compare_outputs(plain, found, referee.axes).sqnr_db
        except WorkerFailure as failure:
            return f"for {group.shape}: {failure.reason}"
    worst, best = min(sqnr_db, key=lambda shape: sqnr_db[shape]), max(sqnr_db, key=lambda shape: sqnr_db[shape])
    if sqnr_db[worst] >= min(fidelity.LEAST_SQNR_DB, sqnr_db[best] - SHAPE_SPREAD_DB):
        return None
    told = f"SQNR {sqnr_db[worst]:.1f} dB against the original's answers"
    return f"for {worst}: {told}, where {best} has {sqnr_db[best]:.1f} dB"


def outcome_of(quality: Quality, confirm_samples: int) -> tuple[Outcome, str]:
    """What a verdict on the select part means for a trial: go on, refused, or beyond what the data can decide.

    A candidate that would need more samples than the confirm part holds could only be certified by luck.
    """
    if quality.verdict is QualityVerdict.NOT_HELD:
        return Outcome.QUALITY_FAILED, quality.reason
    if quality.verdict is QualityVerdict.CANNOT_TELL:
        if quality.drop is not None and quality.drop > quality.margin:
            return Outcome.QUALITY_FAILED, f"drop {quality.drop:.4g} is above the budget {quality.margin:.4g}"
        if quality.samples_hoped is None or quality.samples_hoped > HOPEFUL * confirm_samples:
            return Outcome.QUALITY_UNKNOWN, f"{quality.reason}; the data leave {confirm_samples} for the verdict"
    return Outcome.OK, ""


def verdicts_affordable(margin: float, samples: int, alpha: float, most: int) -> int:
    """How many candidates may be judged on one set of samples so that one without a single flip can still be HELD.

    With the error shared among k verdicts (Bonferroni), zero flips in n samples hold a margin m if (1-m)^n <= alpha/k.

    >>> verdicts_affordable(0.01, samples=500, alpha=0.05, most=3), verdicts_affordable(0.01, 320, 0.05, 3)
    (3, 1)
    """
    if not 0 < margin < 1:
        return 1
    return max(1, min(most, int(alpha * (1 - margin) ** -samples)))


@contextmanager
def failures_of_a_plan() -> Iterator[None]:
    """Turn whatever building a plan raises into an outcome of that plan; a full disk ends the search."""
    try:
        yield
    except WorkerFailure as failure:
        if failure.outcome is Outcome.DISK_FULL:
            raise DiskFull(failure.reason) from failure
        raise
    except (UsageError, EnvironmentFault) as error:
        raise WorkerFailure(Outcome.CONVERT_FAILED, f"{type(error).__name__}: {error}") from error
