"""`vivace.train`: diagnose a training, choose a plan, prove that it trains the same, and train."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vivace.api.parity import LIMITS
from vivace.api.request import machine_of, plan_of
from vivace.api.step_plans import Choice, Chosen
from vivace.api.training_worker import read_plan_of, trained
from vivace.core.errors import UsageError
from vivace.core.plan import Plan
from vivace.core.training.job import Training
from vivace.core.training.run import Diagnosis, TrainingRun
from vivace.devices import ceiling_store
from vivace.measure import environment
from vivace.measure.clock import SystemClock
from vivace.measure.process import Limits, Phase, Worker
from vivace.report.duration import parse_duration
from vivace.report.progress import Progress, SilentProgress
from vivace.search.training.diagnosis import diagnosis_of

DIAGNOSED_STEPS = 20
DIAGNOSIS_ENTRY = "vivace.search.training.diagnosis:open_diagnosis"


def diagnose(job: Training, limits: Limits = LIMITS) -> Diagnosis:
    """Where the time and the memory of a job's step go on this machine, in a process of its own."""
    machine = machine_of("auto")
    with tempfile.TemporaryDirectory(prefix="vivace-") as name, Worker(Path(name), limits) as worker:
        worker.open(DIAGNOSIS_ENTRY, {}, _checked(job), Phase.LOAD)
        read = worker.call("read", {"steps": DIAGNOSED_STEPS}, Phase.MEASURE)
    ceilings = {one.threads: one.gflops.get("f32") for one in ceiling_store.kept(machine)}
    return diagnosis_of(read, ceilings.get(read["threads"]))


def train(
    job: Training,
    until: float | None = None,
    processes: int = 1,
    out: str | Path | None = None,
    *,
    time: str | float = "2m",
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    plan: Plan | Sequence[str | Mapping[str, Any]] | None = None,
    changed: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    limits: Limits = LIMITS,
) -> TrainingRun:
    """Train a job as fast as this machine can, and as the original would have been trained.

    First the original's step is diagnosed. Then techniques are added one by one, each kept if its gradients agree with
    the original's and its steps are measured to be faster; the plan is proved once more as a whole and confirmed in
    fresh pairs of processes. Then the model is trained with it, in a process of its own. Batch size, learning rate and
    schedule stay as they are.

    `until` ends the training at the first epoch after which `evaluate` gives that much. `time` is the most that
    choosing the plan may take, beside its confirmation. `only` and `without` name techniques; `plan` takes one plan,
    which is proved and not timed. `changed` allows techniques that change the computation by design. `out` receives
    model.safetensors, run.json and, while it trains, checkpoints; with `resume` a run that was stopped goes on exactly
    where it was, with the plan that it had.

    Raises UsageError for a job that cannot be used, and where a loss stops being finite; WorkerFailure where the
    training's process dies, after which `resume` goes on; DiskFull with the last checkpoint kept.

    >>> run = vv.train(job, until=0.98, out="run/")  # doctest: +SKIP
    >>> run.scores[-1] >= 0.98  # doctest: +SKIP
    True
    """
    progress = progress or SilentProgress()
    _check_request(job, until, processes)
    seconds = parse_duration(time)
    clock = SystemClock()
    began = clock.now()
    folder = None if out is None else Path(out)
    earlier = read_plan_of(folder, job) if resume and folder is not None else None
    progress.stage("diagnose", "the original's step")
    found = diagnose(job, limits)
    progress.note(f"a step takes {found.step_seconds * 1e3:.3g} ms; {found.bound.value}: {found.evidence}")
    choice = Choice(job, seconds, only, without, changed, limits, progress, found)
    asked = plan if plan is None else plan_of(plan)
    chosen = Chosen(earlier) if earlier is not None else choice.proved(asked) if asked is not None else choice.make()
    started = TrainingRun(
        job.name, chosen.plan, found, chosen.trials, chosen.comparison, chosen.parity, clock.now() - began,
        conditions=environment.snapshot(), out=folder,
    )  # fmt: skip
    return trained(job, started, until, resume, progress, limits)


def _check_request(job: Training, until: float | None, processes: int) -> None:
    _checked(job)
    if processes != 1:
        raise UsageError(f"processes is {processes}; allowed is 1 in this version, which trains in one process")
    if until is not None and job.evaluate is None:
        raise UsageError(
            "until was given, and the job has no evaluate; give evaluate=(model) -> score, higher is better"
        )


def _checked(job: object) -> Training:
    if not isinstance(job, Training):
        raise UsageError(f"job is a {type(job).__name__}; allowed is a vivace.Training(model, loss, optimizer, data)")
    return job
