"""The training itself, in a worker that is asked how far it is; checkpoints in between, the model at the end."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import signal
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_model

from vivace.artifact.save import disk_errors
from vivace.core import registry
from vivace.core.documents import strict_json
from vivace.core.errors import DiskFull, UsageError, WorkerFailure
from vivace.core.measurement import Outcome
from vivace.core.plan import Plan, read_plan
from vivace.core.training.job import Training
from vivace.core.training.run import TrainingRun
from vivace.measure.clock import SystemClock
from vivace.measure.process import Limits, Phase, Worker
from vivace.report.duration import show_duration
from vivace.report.pages import page_of
from vivace.report.progress import Progress
from vivace.report.reading import read_training
from vivace.report.results import PAGE
from vivace.report.training import RUN, training_document
from vivace.training.checkpoint import newest
from vivace.training.course import CourseKeeper
from vivace.training.rig import seeded

ENTRY = "vivace.training.service:open_loop"
PATIENCE_SECONDS, CHECKPOINT_SECONDS = 0.5, 30.0
"""How long the worker trains before it is asked how far it is, and between two checkpoints."""
FIRST_STEPS, MOST_STEPS = 8, 10_000
MODEL, PLAN, CHECKPOINTS = "model.safetensors", "plan.json", "checkpoints"
SCHEMA = 1


def trained(
    job: Training, run: TrainingRun, until: float | None, resume: bool, progress: Progress, limits: Limits
) -> TrainingRun:
    """Train with the plan of `run`, and return it with what came of it and with the model."""
    with tempfile.TemporaryDirectory(prefix="vivace-") as name, disk_errors(run.out or Path(name)):
        home = Path(name) / "run" if run.out is None else run.out
        home.mkdir(parents=True, exist_ok=True)
        keep = home / CHECKPOINTS
        if not resume and keep.is_dir() and any(keep.iterdir()):
            raise UsageError(
                f"{home} holds checkpoints of a training; go on with it (resume=True, --resume), give another out, or "
                "remove it"
            )
        _write(home / PLAN, {"schema_version": SCHEMA, "job": identity(job), "plan": run.plan.to_json()})
        with Worker(Path(name) / "worker", limits) as worker:
            asked = {"keep": str(keep), "identity": identity(job)}
            worker.open(ENTRY, asked, (job, run.plan), Phase.LOAD)
            final = _Drive(job, worker, progress, until).run(run)
            worker.call("write_model", {"to": str(home / MODEL)}, Phase.CONVERT)
        with seeded(job.seed):
            model = job.model()
        load_model(model, home / MODEL)
        final = dataclasses.replace(final, model=model.eval())
        text = training_document(final).to_text()
        (home / RUN).write_text(text, encoding="utf-8")
        (home / PAGE).write_text(page_of(read_training(text)), encoding="utf-8")  # what `vivace report` writes again
        return final


def identity(job: Training) -> str:
    """What checkpoints must be of: the job's name and numbers, and the names and shapes of its model's tensors."""
    with seeded(job.seed):
        shapes = {name: list(value.shape) for name, value in job.model().state_dict().items()}
    numbers = [job.name, job.batch_size, job.epochs, job.seed, job.shuffle, shapes]
    return hashlib.sha256(json.dumps(numbers).encode()).hexdigest()[:32]


def read_plan_of(folder: Path, job: Training) -> Plan | None:
    """The plan of a run that is to go on; None where there is none. Raises UsageError where it is of another job."""
    file = folder / PLAN
    if not file.is_file():
        return None
    try:
        note = strict_json.loads(file.read_text(encoding="utf-8"))
        plan, of = read_plan(note["plan"], registry.techniques()), note["job"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file} cannot be read ({error}); give another out, or leave resume out") from error
    if of != identity(job):
        raise UsageError(f"{file} is of another job, or this one has changed; give another out, or leave resume out")
    return plan


def has_checkpoint(folder: Path) -> bool:
    """Whether a run's folder holds something to go on from."""
    return newest(folder / CHECKPOINTS) is not None


@dataclasses.dataclass
class _Drive:
    """Trains until the epochs are over or the score is reached, and keeps account. `opened` is what the worker told
    when it was ready: where the training is, and how many steps an epoch has, where that is known."""

    job: Training
    worker: Worker
    progress: Progress
    until: float | None
    losses: list[float] = dataclasses.field(default_factory=list)
    scores: list[float | None] = dataclasses.field(default_factory=list)
    epoch_losses: list[float] = dataclasses.field(default_factory=list)
    epoch_seconds: list[float] = dataclasses.field(default_factory=list)
    spent: float = 0.0
    skipped: int = 0

    def __post_init__(self) -> None:
        self.clock = SystemClock()
        self.course = CourseKeeper()
        self.opened: Mapping[str, Any] = {}

    def run(self, run: TrainingRun) -> TrainingRun:
        """Raises KeyboardInterrupt after Ctrl-C, with a checkpoint of the step that had begun."""
        with Stopping() as stopping:
            return self._train(run, stopping)

    def _train(self, run: TrainingRun, stopping: Stopping) -> TrainingRun:
        clock, steps = self.clock, FIRST_STEPS
        began = saved = clock.now()
        position = self.opened = self.worker.call("prepare", {}, Phase.CONVERT)
        self.course = CourseKeeper(position["steps"])
        for note in position["notes"]:
            self.progress.note(note)
        prepared = clock.now()
        while True:
            started = clock.now()
            told = self.worker.call("advance", {"steps": steps}, Phase.CONVERT)
            spent, position = clock.now() - started, told["position"]
            self._take_in(told["losses"], spent, clock.now() - began)
            self.skipped = told["skipped"]
            if told["losses"]:
                each = spent / len(told["losses"])
                steps = max(1, min(MOST_STEPS, int(PATIENCE_SECONDS / max(each, 1e-9))))
                self.progress.stage("train", self._line(position, told["losses"][-1], each))
            ended = clock.now() - began
            reached = self._end_epoch(ended) if position["batch"] == 0 and self.epoch_losses else False
            is_over = told["is_over"] or reached
            is_late = stopping.is_asked or clock.now() - saved > CHECKPOINT_SECONDS
            is_whole = self._left(position) != 0  # resumed with nothing left, it would lose the epoch
            if is_over or (is_late and is_whole):
                self._save()
                saved = clock.now()
            if stopping.is_asked and is_whole and not is_over:
                raise KeyboardInterrupt
            if is_over:
                break
        return dataclasses.replace(
            run, losses=tuple(self.losses), scores=tuple(self.scores), steps=position["steps"],
            seconds=clock.now() - began, prepare_seconds=prepared - began, epoch_seconds=tuple(self.epoch_seconds),
            peak_bytes=self.worker.peak_bytes, resumed_steps=self.opened["steps"], skipped_steps=self.skipped,
            reached=None if self.until is None else reached, course=self.course.course(),
        )  # fmt: skip

    def _left(self, position: Mapping[str, Any]) -> int | None:
        """Steps that are left of the epoch, where that is known."""
        steps: int | None = self.opened["steps_an_epoch"]
        return None if steps is None else steps - int(position["batch"])

    def _take_in(self, losses: list[float], spent: float, elapsed: float) -> None:
        self.epoch_losses += losses
        self.spent += spent
        if losses:
            self.course.steps(losses, spent / len(losses), elapsed)

    def _end_epoch(self, elapsed: float) -> bool:
        """Take in an epoch and its score; whether the score that was asked for is reached."""
        started = self.clock.now()
        score = self.worker.call("score", {}, Phase.CONVERT)
        took = self.clock.now() - started
        self.course.epoch(elapsed + took, None if score is None else took)
        self.losses.append(sum(self.epoch_losses) / len(self.epoch_losses))
        self.scores.append(score)
        self.epoch_seconds.append(self.spent)
        self.epoch_losses, self.spent = [], 0.0
        return self.until is not None and score is not None and score >= self.until

    def _save(self) -> None:
        try:
            self.worker.call("save", {}, Phase.CONVERT)
        except WorkerFailure as failure:
            if failure.outcome is not Outcome.DISK_FULL:
                raise
            told = f"{failure.reason}; the checkpoint before it is kept: make room, and go on with resume (--resume)"
            raise DiskFull(told) from None

    def _line(self, position: Mapping[str, Any], loss: float, each: float) -> str:
        score = f", score {self.scores[-1]:.4g}" if self.scores and self.scores[-1] is not None else ""
        epoch = min(position["epoch"] + 1, self.job.epochs)
        where = f"epoch {epoch} of {self.job.epochs}, step {position['steps']}"
        an_epoch = self.opened["steps_an_epoch"]
        seconds = None if an_epoch is None else (an_epoch * self.job.epochs - position["steps"]) * each
        left = "" if seconds is None else f", at most {show_duration(seconds)} left"
        return f"{where}: loss {loss:.4g}{score}, {each * 1e3:.3g} ms a step{left}"


class Stopping:
    """Ctrl-C once asks to stop at the next opportunity; a second one stops at once. So does a request to terminate,
    where the program takes that for Ctrl-C. Only the main thread is sent signals, so elsewhere nothing is asked.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
            self._before = {number: before for number, before in handlers.items() if callable(before)}
            for number in self._before:
                signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _ask(self, *_: object) -> None:
        self.is_asked = True
        self.__exit__()


def _write(file: Path, document: dict[str, Any]) -> None:
    """A whole file or none."""
    beside = file.with_suffix(".part")
    beside.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    beside.replace(file)
