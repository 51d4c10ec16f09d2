"""`vivace.accelerate`: the parts of a training step, made faster and proved, for a loop that stays the user's own."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vivace.api.parity import LIMITS, parity_of
from vivace.api.step_plans import TAKES_STEP, Choice
from vivace.api.training_request import as_asked, checked, sending, training_plan_of
from vivace.core.errors import StepChanged, WorkerFailure
from vivace.core.plan import Plan
from vivace.core.quality import QualityVerdict
from vivace.core.technique import Effect
from vivace.core.training.job import Training
from vivace.core.training.parity import Parity
from vivace.core.training.rig import Rig
from vivace.measure.process import Limits, Phase, Worker
from vivace.report.duration import parse_duration
from vivace.report.progress import Progress, SilentProgress
from vivace.training.own_loop import Accelerated, accelerated
from vivace.training.proof.by_hand import changed_since, given_back, modes, proved_by_hand
from vivace.training.proof.snapshot import standing
from vivace.training.proof.together import Unproved
from vivace.training.rig import assemble, seeded
from vivace.training.service import as_json, equip

FITTING_ENTRY = "vivace.training.service:open_fitting"
FURTHER = 3
"""Steps that are taken in a row after the one that `Accelerated.prove` compares."""


def accelerate(
    job: Training,
    plan: Plan | Sequence[str | Mapping[str, Any]] | None = None,
    *,
    time: str | float = "3m",
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    changed: bool = False,
    progress: Progress | None = None,
    limits: Limits = LIMITS,
) -> Accelerated:
    """The model, optimizer and loader of a job for a loop of your own, as fast as this machine can and proved.

    The plan is chosen as `train` chooses it, in processes of their own: each technique's gradients are compared with
    the original's before its steps are timed. Then the parts are made anew in this process, from the job's seed, and
    given the plan; nothing else here changes, neither threads nor random generators. What takes the step as a whole
    cannot live in a loop that somebody else writes: such techniques are left out, each with a sentence in `left_out`.

    `plan` takes one plan, which is proved and not timed; the other arguments are those of `train`. Raises UsageError
    for a job or a plan that cannot be used.

    >>> from vivace.testing.tiny_training import job
    >>> fast = vv.accelerate(job(), plan=["fused-optimizer"])
    >>> model, optimizer, loader = fast
    >>> with fast.running():
    ...     for batch in loader:
    ...         optimizer.zero_grad()
    ...         loss = fast.loss(batch)
    ...         loss.backward()
    ...         optimizer.step()
    >>> bool(loss < 1.5), fast.parity.verdict.value, fast.left_out
    (True, 'HELD', ())
    """
    progress = progress or SilentProgress()
    seconds = parse_duration(time)
    with sending(checked(job)):
        choice = Choice(job, seconds, only, without, changed, limits, progress, own_loop=True)
        if plan is None:
            chosen = choice.make()
            left_out = [f"{one.plan.techniques[-1]}: {one.reason}" for one in chosen.trials if one.reason == TAKES_STEP]
        else:
            fitting, left_out = _fitting(job, training_plan_of(plan), limits)
            chosen = choice.asked(fitting)
    for sentence in left_out:
        progress.note(f"left out: {sentence}")
    with seeded(job.seed):
        rig = equip(assemble(job), job, chosen.plan)
    speedup = chosen.comparison.speedup if chosen.comparison and len(chosen.plan) else None
    return accelerated(rig, chosen.plan, chosen.parity, speedup, tuple(left_out), _Prover(job, rig))


class _Prover:
    """Proves the steps of an own loop, with the job that its parts were made of."""

    def __init__(self, job: Training, rig: Rig) -> None:
        self._job = job
        self._before = standing(rig.model) | modes(rig)

    def __call__(self, fast: Accelerated, batch: Any) -> Parity:
        changed = changed_since(fast.rig, self._before)
        try:
            found = proved_by_hand(self._job, fast.plan, fast.rig, batch, changed, FURTHER)
        except (Unproved, StepChanged) as why:
            effect = fast.plan.training_effect.value
            return Parity(str(fast.plan), effect, "none", QualityVerdict.CANNOT_TELL, str(why), ())
        told = {**as_json(found), "whole_step": False}
        proof = parity_of(fast.plan, told, effect=Effect.ROUNDED)
        if proof.verdict is QualityVerdict.NOT_HELD and len(fast.plan):
            who = fast.plan if len(fast.plan) == 1 else f"one of {fast.plan}"
            fast.left_out = (*fast.left_out, f"{who}: its step became another one: {proof.reason}")
            fast.rig, fast.plan = given_back(self._job, fast.rig, changed), Plan()
            warnings.warn(
                f"{who} does not take the original's step any more ({proof.reason}); the original's is taken from "
                "now on, and the weights are what the steps before have made of them",
                RuntimeWarning,
                stacklevel=3,
            )
        return proof


def _fitting(job: Training, plan: Plan, limits: Limits) -> tuple[Plan, list[str]]:
    """A plan less what takes the step as a whole, found out in a process of its own, and a sentence for each of it."""
    if not len(plan):
        return plan, []
    try:
        with tempfile.TemporaryDirectory(prefix="vivace-") as name, Worker(Path(name), limits) as worker:
            kept = set(worker.open(FITTING_ENTRY, {}, (job, plan), Phase.CONVERT))
    except WorkerFailure as failure:
        raise as_asked(failure, plan) from failure
    left = [f"{one}: {TAKES_STEP}" for number, one in enumerate(plan) if number not in kept]
    return Plan.of([one for number, one in enumerate(plan) if number in kept]), left
