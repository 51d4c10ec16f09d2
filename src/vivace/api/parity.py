"""`vivace.parity`: whether a plan trains as the original does, shown tensor by tensor, then by losses and scores."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vivace.api.request import plan_of
from vivace.api.training_request import checked, sending
from vivace.core.errors import UsageError
from vivace.core.plan import Plan
from vivace.core.quality import QualityVerdict
from vivace.core.technique import Effect
from vivace.core.training.job import Training
from vivace.core.training.parity import Agreement, Curve, Kind, Parity
from vivace.measure.process import Limits, Phase, Worker
from vivace.measure.stats import equivalence, mean_interval
from vivace.report.progress import Progress, SilentProgress

ENTRY = "vivace.training.service:open_examiner"
SHARE_OF_GAIN = 0.02
"""Of what the original's loss falls: so much may the plan's loss be off, or the spread over seeds if that is more."""
SCORE_MARGIN = 0.01
"""So much may the plan's score be off, or the spread over seeds if that is more."""
LIMITS = Limits(load=300, convert=600, verify=3600)


def parity(
    job: Training,
    plan: Plan | Sequence[str | Mapping[str, Any]],
    *,
    steps: int = 3,
    seeds: int = 0,
    curve_steps: int = 100,
    progress: Progress | None = None,
    limits: Limits = LIMITS,
) -> Parity:
    """Whether a plan trains as the original does.

    `steps` single steps are compared first, each from the original's weights: every gradient, buffer and, in the first
    step, update, against the same step in float64, and beside how far the original's own float32 step is from that.
    With `seeds` (3 or more tell something) both are then trained for `curve_steps` from each seed, and their losses and
    scores compared by equivalence tests. `plan` is a Plan, or the names of its techniques as `optimize` takes them.

    Techniques that change the computation by design (CHANGED) are judged by losses and scores alone.

    Raises UsageError for a job or a plan that cannot be used; WorkerFailure where the plan's step fails.

    >>> vv.parity(job, ["fused-optimizer"]).verdict.value  # doctest: +SKIP
    'HELD'
    """
    progress = progress or SilentProgress()
    if steps < 1 or seeds < 0 or curve_steps < 4:
        raise UsageError(
            f"steps is {steps}, seeds {seeds} and curve_steps {curve_steps}; allowed are 1, 0 and 4, or more of each"
        )
    chosen = plan_of(plan)
    with (
        sending(checked(job)),
        tempfile.TemporaryDirectory(prefix="vivace-") as name,
        Worker(Path(name), limits) as worker,
    ):
        worker.open(ENTRY, {}, (job, chosen), Phase.LOAD)
        progress.stage("gradients", f"{steps} steps against float64")
        found = worker.call("agreements", {"steps": steps}, Phase.VERIFY)
        runs = []
        for number in range(seeds):
            progress.stage("losses", f"seed {number + 1} of {seeds}, {curve_steps} steps of each")
            asked = {"seed": job.seed + number, "steps": curve_steps}
            pair = [worker.call("curve", {**asked, "with_plan": which}, Phase.VERIFY) for which in (False, True)]
            runs.append(pair)
    curve = loss_curve([pair[0]["losses"] for pair in runs], [pair[1]["losses"] for pair in runs]) if runs else None
    scored = [pair for pair in runs if pair[0]["score"] is not None]
    scores = _scores([pair[0]["score"] for pair in scored], [pair[1]["score"] for pair in scored]) if scored else None
    return parity_of(chosen, found, curve, scores)


def parity_of(plan: Plan, found: Mapping[str, Any], curve: Curve | None = None, scores: Curve | None = None) -> Parity:
    """The proof, from what `training.service.Examiner` found of a plan."""
    agreements = tuple(map(_agreement, found["agreements"]))
    verdict, reason = judged(plan.training_effect, agreements, curve, scores)
    return Parity(
        str(plan), plan.training_effect.value, found["reference"], verdict, reason, agreements, curve, scores,
        tuple(found["notes"]), found["whole_step"],
    )  # fmt: skip


def judged(
    effect: Effect, agreements: Sequence[Agreement], curve: Curve | None, scores: Curve | None
) -> tuple[QualityVerdict, str]:
    """The verdict of a proof, and the sentence that says why."""
    culprits = [one for one in agreements if not one.holds and (effect is not Effect.CHANGED or one.kind is Kind.BATCH)]
    if culprits:
        more = f", and {len(culprits) - 1} more" if len(culprits) > 1 else ""
        return QualityVerdict.NOT_HELD, f"{culprits[0]}{more}"
    found = {"loss": curve, "score": scores}
    for verdict in (QualityVerdict.NOT_HELD, QualityVerdict.CANNOT_TELL):
        for name, one in found.items():
            if one is not None and one.verdict is verdict:
                told = f"{one.difference} with a margin of {one.margin:.3g} over {len(one.original)} seeds"
                return verdict, f"the plan's {name} less the original's is {told}"
    if effect is Effect.CHANGED and curve is None:
        return (
            QualityVerdict.CANNOT_TELL,
            "a plan that changes the computation is judged by its losses: give seeds=3",
        )
    count = len({(one.kind, one.name) for one in agreements})
    return QualityVerdict.HELD, f"all of {count} tensors agree within what their own rounding allows"


def loss_curve(original: Sequence[Sequence[float]], plan: Sequence[Sequence[float]]) -> Curve:
    """Losses over seeds: the means over the last quarter of the steps, pair by pair."""
    ends = [[statistics.fmean(losses[-max(1, len(losses) // 4) :]) for losses in side] for side in (original, plan)]
    starts = [losses[0] for losses in original]
    gained = abs(statistics.fmean(starts) - statistics.fmean(ends[0]))
    difference = mean_interval([theirs - own for own, theirs in zip(*ends, strict=True)])
    margin = max(SHARE_OF_GAIN * gained, statistics.stdev(ends[0]) if len(ends[0]) > 1 else 0.0)
    return Curve(
        tuple(map(tuple, original)), tuple(map(tuple, plan)), difference, margin, equivalence(difference, margin)
    )


def _scores(original: Sequence[float], plan: Sequence[float]) -> Curve:
    difference = mean_interval([theirs - own for own, theirs in zip(original, plan, strict=True)])
    margin = max(SCORE_MARGIN, statistics.stdev(original) if len(original) > 1 else 0.0)
    sides = [tuple((score,) for score in side) for side in (original, plan)]
    return Curve(sides[0], sides[1], difference, margin, equivalence(difference, margin))


def _agreement(node: Mapping[str, Any]) -> Agreement:
    error = float("inf") if node["error"] is None else node["error"]
    return Agreement(**{**node, "kind": Kind(node["kind"]), "error": error})
