"""`vivace.parity`: whether a plan trains as the original does, shown tensor by tensor, then by losses and scores."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vivace.api.together.team import QUIET, RankHand, laid_out, open_ranks, steadily, team_of
from vivace.api.training_request import as_asked, checked, sending, training_plan_of
from vivace.core.errors import UsageError, WorkerFailure
from vivace.core.plan import Plan
from vivace.core.quality import QualityVerdict
from vivace.core.technique import Effect
from vivace.core.training.job import Training
from vivace.core.training.parity import Agreement, Curve, Kind, Parity
from vivace.distributed.layout import Layout
from vivace.distributed.team import Team
from vivace.measure.clock import SystemClock
from vivace.measure.process import Limits, Phase, Worker
from vivace.measure.stats import equivalence, mean_interval
from vivace.report.progress import Progress, SilentProgress

ENTRY = "vivace.training.service:open_examiner"
MIXES = (
    "look for what mixes the samples of a batch, such as a loss over pairs of them, give `weight` where not every "
    "sample weighs the same, or train with processes=1"
)
SHARE_OF_GAIN = 0.02
"""Of what the original's loss falls: so much may the plan's loss be off, or the spread over seeds if that is more."""
SCORE_MARGIN = 0.01
"""So much may the plan's score be off, or the spread over seeds if that is more."""
FIRST_IN_A_ROW, IN_A_ROW = 3, 10
"""Steps that are taken in a row after those that are compared one by one: in any case, and at most."""
ROW_SECONDS, ROW_SHARE = 0.5, 0.25
"""What they may take, in seconds, and beside the others; whichever is more."""
LIMITS = Limits(load=300, convert=600, verify=3600)


def parity(
    job: Training,
    plan: Plan | Sequence[str | Mapping[str, Any]] = (),
    *,
    layout: str | Layout = "",
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

    With a `layout` ("data=2", see `distributed.layout.Layout`), or a plan that has one, so many processes of this
    machine take the plan's steps together; the original's are those of one process.

    Techniques that change the computation by design (CHANGED) are judged by losses and scores alone.

    Raises UsageError for a job, a plan or a layout that cannot be used; WorkerFailure where the plan's step fails.

    >>> vv.parity(job, ["fused-optimizer"]).verdict.value  # doctest: +SKIP
    'HELD'
    >>> vv.parity(job, layout="data=2,shard=2", seeds=3).curve.verdict.value  # doctest: +SKIP
    'HELD'
    """
    if steps < 1 or seeds < 0 or curve_steps < 4:
        raise UsageError(
            f"steps is {steps}, seeds {seeds} and curve_steps {curve_steps}; allowed are 1, 0 and 4, or more of each"
        )
    chosen = training_plan_of(plan)
    if str(layout):
        chosen = laid_out(chosen, layout if isinstance(layout, Layout) else Layout.read(layout))
    asked = Comparing(steps, seeds, curve_steps)
    with sending(checked(job)):
        try:
            return compared(job, chosen, asked, None, progress or SilentProgress(), limits)
        except WorkerFailure as failure:
            raise as_asked(failure, chosen) from failure


@dataclasses.dataclass(frozen=True)
class Comparing:
    """How much is compared: single steps; and losses of so many steps from each of `seeds`, where there are any."""

    steps: int
    seeds: int = 0
    curve_steps: int = 100


def compared(
    job: Training, plan: Plan, asked: Comparing, team: Team | None, progress: Progress, limits: Limits
) -> Parity:
    """The proof of a plan, by a worker, or by as many ranks as the plan's layout needs, as patient as `team` is."""
    team = team_of(plan, job, team)
    variables = None if team is None else QUIET
    with (
        tempfile.TemporaryDirectory(prefix="vivace-") as name,
        Worker(Path(name), limits, variables, fresh=False) as worker,
    ):
        if team is None:
            worker.open(ENTRY, {}, (job, plan), Phase.LOAD)
        hand = None if team is None else open_ranks(worker, team, job, plan, {})

        def told(method: str, **arguments: Any) -> Any:
            if hand is None:
                return worker.call(method, arguments, Phase.VERIFY)
            return steadily(hand, method, arguments)

        progress.stage("gradients", f"{asked.steps} steps against float64")
        found = _found(told, plan, asked.steps)
        runs = []
        for number in range(asked.seeds):
            progress.stage("losses", f"seed {number + 1} of {asked.seeds}, {asked.curve_steps} steps of each")
            seed = job.seed + number
            runs.append([told("curve", seed=seed, steps=asked.curve_steps, with_plan=one) for one in (False, True)])
    curve = loss_curve([pair[0]["losses"] for pair in runs], [pair[1]["losses"] for pair in runs]) if runs else None
    scored = [pair for pair in runs if pair[0]["score"] is not None]
    scores = _scores([pair[0]["score"] for pair in scored], [pair[1]["score"] for pair in scored]) if scored else None
    return parity_of(plan, found, curve, scores)


class TrainsOtherwise(UsageError):
    """Several processes' steps are not those of one process: what the proof said."""

    def __init__(self, parity: Parity) -> None:
        self.parity = parity
        super().__init__(f"on several processes this job trains differently than on one: {parity.reason}; {MIXES}")


def _found(told: Callable[..., Any], plan: Plan, steps: int) -> dict[str, Any]:
    """What a worker found (`told`): of single steps first, then of some that are taken in a row, as many as take no
    longer than their share of that."""
    clock = SystemClock()
    began = clock.now()
    found: dict[str, Any] = told("agreements", steps=steps)
    if not len(plan) or plan.training_effect is Effect.CHANGED:
        return found
    affordable = max(ROW_SECONDS, ROW_SHARE * (clock.now() - began))
    began = clock.now()
    rows = [told("in_a_row", steps=FIRST_IN_A_ROW)]
    each = (clock.now() - began) / FIRST_IN_A_ROW
    more = min(IN_A_ROW - FIRST_IN_A_ROW, int(affordable / max(each, 1e-9)) - FIRST_IN_A_ROW)
    if more > 0 and not rows[0]["notes"]:
        rows.append(told("in_a_row", steps=more))
    every = itertools.chain(found["agreements"], *(row["agreements"] for row in rows))
    agreements = sorted(every, key=lambda one: _agreement(one).holds)
    return {**found, "agreements": agreements, "notes": [*found["notes"], *rows[-1]["notes"]]}


def proved(ranks: RankHand, plan: Plan, steps: int = 3) -> Parity:
    """The proof that the ranks' steps are those of one process. Raises TrainsOtherwise where they are not."""
    try:
        found = _found(lambda method, **arguments: steadily(ranks, method, arguments), plan, steps)
        proof = parity_of(plan, found)
    except WorkerFailure as failure:
        raise as_asked(failure, plan) from failure
    if proof.verdict is QualityVerdict.NOT_HELD:
        raise TrainsOtherwise(proof)
    return proof


def parity_of(
    plan: Plan,
    found: Mapping[str, Any],
    curve: Curve | None = None,
    scores: Curve | None = None,
    effect: Effect | None = None,
) -> Parity:
    """The proof, from what `training.service.Examiner` found of a plan; by an `effect` other than the plan's own, where
    what was found allows for that already."""
    agreements = tuple(map(_agreement, found["agreements"]))
    verdict, reason = judged(effect or plan.training_effect, agreements, curve, scores)
    return Parity(
        str(plan), plan.training_effect.value, found["reference"], verdict, reason, agreements, curve, scores,
        tuple(found["notes"]), found["whole_step"],
    )  # fmt: skip


def judged(
    effect: Effect, agreements: Sequence[Agreement], curve: Curve | None, scores: Curve | None
) -> tuple[QualityVerdict, str]:
    """The verdict of a proof, and the sentence that says why."""
    off = [one for one in agreements if not one.holds and (effect is not Effect.CHANGED or one.kind is Kind.BATCH)]
    culprits = [one for one in off if not one.is_undecided]
    if culprits:
        more = f", and {len(culprits) - 1} more" if len(culprits) > 1 else ""
        return QualityVerdict.NOT_HELD, f"{culprits[0]}{more}"
    found = {"loss": curve, "score": scores}
    for verdict in (QualityVerdict.NOT_HELD, QualityVerdict.CANNOT_TELL):
        for name, one in found.items():
            if one is not None and one.verdict is verdict:
                told = f"{one.difference} with a margin of {one.margin:.3g} over {len(one.original)} seeds"
                return verdict, f"the plan's {name} less the original's is {told}"
    if off:
        told = f"two runs of the original differ by {off[0].again:.2g} there by themselves"
        return QualityVerdict.CANNOT_TELL, f"{off[0]}; {told}: draw from PyTorch's, NumPy's or Python's own generators"
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
