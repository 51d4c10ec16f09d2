"""`vivace.accelerate`: the parts of a training step, made faster and proved, for a loop that stays the user's own."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vivace.api.parity import LIMITS
from vivace.api.step_plans import TAKES_STEP, Choice
from vivace.api.training_request import as_asked, checked, sending, training_plan_of
from vivace.core.errors import WorkerFailure
from vivace.core.plan import Plan
from vivace.core.training.job import Training
from vivace.measure.process import Limits, Phase, Worker
from vivace.report.duration import parse_duration
from vivace.report.progress import Progress, SilentProgress
from vivace.training.own_loop import Accelerated, accelerated
from vivace.training.rig import assemble, seeded
from vivace.training.service import equip

FITTING_ENTRY = "vivace.training.service:open_fitting"


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
    return accelerated(rig, chosen.plan, chosen.parity, speedup, tuple(left_out))


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
