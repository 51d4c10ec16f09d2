"""The training itself, in a worker that is asked how far it is; checkpoints in between, the model at the end."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import load_model

from vivace.core import registry
from vivace.core.documents import strict_json
from vivace.core.errors import DiskFull, UsageError, WorkerFailure
from vivace.core.measurement import Outcome
from vivace.core.plan import Plan, read_plan
from vivace.core.training.job import Training
from vivace.core.training.run import TrainingRun
from vivace.measure.clock import SystemClock
from vivace.measure.process import Limits, Phase, Worker
from vivace.report.progress import Progress
from vivace.report.training import training_document
from vivace.training.rig import seeded

ENTRY = "vivace.training.service:open_loop"
PATIENCE_SECONDS, CHECKPOINT_SECONDS = 0.5, 30.0
"""How long the worker trains before it is asked how far it is, and between two checkpoints."""
FIRST_STEPS, MOST_STEPS = 8, 10_000
MODEL, PLAN, RUN, CHECKPOINTS = "model.safetensors", "plan.json", "run.json", "checkpoints"
SCHEMA = 1


def trained(
    job: Training, run: TrainingRun, until: float | None, resume: bool, progress: Progress, limits: Limits
) -> TrainingRun:
    """Train with the plan of `run`, and return it with what came of it and with the model."""
    with tempfile.TemporaryDirectory(prefix="vivace-") as name:
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
            opened = worker.open(ENTRY, asked, (job, run.plan), Phase.LOAD)
            final = _Drive(job, worker, progress, until, opened["steps"]).run(run)
            worker.call("write_model", {"to": str(home / MODEL)}, Phase.CONVERT)
        with seeded(job.seed):
            model = job.model()
        load_model(model, home / MODEL)
        final = dataclasses.replace(final, model=model.eval())
        (home / RUN).write_text(training_document(final).to_text(), encoding="utf-8")
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


@dataclasses.dataclass
class _Drive:
    """Trains until the epochs are over or the score is reached, and keeps account."""

    job: Training
    worker: Worker
    progress: Progress
    until: float | None
    resumed: int
    losses: list[float] = dataclasses.field(default_factory=list)
    scores: list[float | None] = dataclasses.field(default_factory=list)
    epoch_losses: list[float] = dataclasses.field(default_factory=list)
    skipped: int = 0

    def run(self, run: TrainingRun) -> TrainingRun:
        clock, steps, position = SystemClock(), FIRST_STEPS, {"steps": self.resumed}
        began = saved = clock.now()
        while True:
            started = clock.now()
            told = self.worker.call("advance", {"steps": steps}, Phase.CONVERT)
            spent, position = clock.now() - started, told["position"]
            self.epoch_losses += told["losses"]
            self.skipped = told["skipped"]
            if told["losses"]:
                each = spent / len(told["losses"])
                steps = max(1, min(MOST_STEPS, int(PATIENCE_SECONDS / max(each, 1e-9))))
                self.progress.stage("train", self._line(position, told["losses"][-1], each))
            reached = self._end_epoch(told["score"]) if position["batch"] == 0 and self.epoch_losses else False
            is_over = told["is_over"] or reached
            if is_over or clock.now() - saved > CHECKPOINT_SECONDS:
                self._save()
                saved = clock.now()
            if is_over:
                break
        return dataclasses.replace(
            run, losses=tuple(self.losses), scores=tuple(self.scores), steps=position["steps"],
            seconds=clock.now() - began, resumed_steps=self.resumed, skipped_steps=self.skipped,
            reached=None if self.until is None else reached,
        )  # fmt: skip

    def _end_epoch(self, score: float | None) -> bool:
        """Take in an epoch; whether the score that was asked for is reached."""
        self.losses.append(sum(self.epoch_losses) / len(self.epoch_losses))
        self.scores.append(score)
        self.epoch_losses = []
        return self.until is not None and score is not None and score >= self.until

    def _save(self) -> None:
        try:
            self.worker.call("save", {}, Phase.CONVERT)
        except WorkerFailure as failure:
            if failure.outcome is not Outcome.DISK_FULL:
                raise
            told = f"{failure.reason}; the checkpoint before it is kept: make room, and go on with resume (--resume)"
            raise DiskFull(told) from None

    def _line(self, position: dict[str, Any], loss: float, each: float) -> str:
        score = f", score {self.scores[-1]:.4g}" if self.scores and self.scores[-1] is not None else ""
        epoch = min(position["epoch"] + 1, self.job.epochs)
        where = f"epoch {epoch} of {self.job.epochs}, step {position['steps']}"
        return f"{where}: loss {loss:.4g}{score}, {each * 1e3:.3g} ms a step"


def _write(file: Path, document: dict[str, Any]) -> None:
    """A whole file or none."""
    beside = file.with_suffix(".part")
    beside.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    beside.replace(file)
