"""The training itself, in a worker that is asked how far it is; checkpoints in between, the model at the end."""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import json
import shutil
import signal
import statistics
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_model

from vivace.api.parity import proved
from vivace.api.together.restarts import Restarts
from vivace.api.together.team import QUIET, RankHand, Restarted, diagnosed, open_ranks
from vivace.artifact.save import disk_errors
from vivace.core import registry
from vivace.core.documents import strict_json
from vivace.core.errors import DiskFull, StepChanged, UsageError, WorkerFailure
from vivace.core.measurement import Outcome
from vivace.core.plan import Plan, read_plan
from vivace.core.technique import Stage
from vivace.core.training.job import Training
from vivace.core.training.run import Rank, Scaling, TrainingRun
from vivace.distributed.layout import Layout
from vivace.distributed.team import Team
from vivace.measure.clock import SystemClock
from vivace.measure.process import Limits, Phase, Worker
from vivace.report.duration import show_duration
from vivace.report.pages import page_of
from vivace.report.progress import Progress
from vivace.report.reading import read_training
from vivace.report.results import PAGE
from vivace.report.training import RUN, training_document
from vivace.training.checkpoint import newest, settings_of
from vivace.training.course import Account, CourseKeeper, read_account, write_accounts
from vivace.training.feed import length_of
from vivace.training.rig import seeded

ENTRY = "vivace.training.service:open_loop"
PATIENCE_SECONDS, CHECKPOINT_SECONDS = 0.5, 30.0
"""How long the worker trains before it is asked how far it is, and between two checkpoints."""
FIRST_STEPS, MOST_STEPS = 8, 10_000
MODEL, PLAN, CHECKPOINTS, ACCOUNT = "model.safetensors", "plan.json", "checkpoints", "account.json"
SCHEMA = 1
FOREVER_SECONDS = 3e7
"""How long a machine may take part in what another one leads: a year."""


def trained(
    job: Training,
    run: TrainingRun,
    until: float | None,
    resume: bool,
    progress: Progress,
    limits: Limits,
    team: Team | None = None,
) -> TrainingRun:
    """Train with the plan of `run`, and return it with what came of it and with the model. With a `team` that is done
    by its processes, after a proof that their steps are those of one.

    Where a step that was recorded becomes another one, what had recorded it is taken out of the plan, and the training
    begins again: its steps may have been others for a while, and what they depend on is in no checkpoint.
    """
    try:
        return _session(job, run, until, resume, progress, limits, team)
    except StepChanged as change:
        run = _without_recording(run, change)
        progress.note(run.dropped[-1])
    if run.out is not None:
        shutil.rmtree(run.out / CHECKPOINTS, ignore_errors=True)
        (run.out / ACCOUNT).unlink(missing_ok=True)
    return _session(job, run, until, False, progress, limits, team)


def _without_recording(run: TrainingRun, change: StepChanged) -> TrainingRun:
    """The run without what had recorded its step, in a plan that was compared with nothing. Raises the error again
    where it is not known what that is."""
    recording = [one for one in run.plan if one.stage in (Stage.COMPILE, Stage.TARGET)]
    if not recording:
        raise change
    plan = Plan(tuple(one for one in run.plan if one not in recording))
    told = f"{' and '.join(map(str, recording))} was taken out, since {str(change).partition(':')[0]}"
    dropped = (*run.dropped, f"{told}; it was trained {f'with {plan}' if len(plan) else 'as given'} from the beginning")
    return dataclasses.replace(
        run, plan=plan, dropped=dropped, comparison=None, parity=None, diagnosis_after=None, break_even_steps=None
    )


def _session(
    job: Training,
    run: TrainingRun,
    until: float | None,
    resume: bool,
    progress: Progress,
    limits: Limits,
    team: Team | None,
) -> TrainingRun:
    with tempfile.TemporaryDirectory(prefix="vivace-") as name, disk_errors(run.out or Path(name)):
        home = Path(name) / "run" if run.out is None else run.out
        home.mkdir(parents=True, exist_ok=True)
        keep = home / CHECKPOINTS
        if not resume and keep.is_dir() and any(keep.iterdir()):
            raise UsageError(
                f"{home} holds checkpoints of a training; go on with it (resume=True, --resume), give another out, or "
                "remove it"
            )
        asked_for = (run.conditions.get("options", {}).get("team") or {}).get("processes", 1)

        note = {"schema_version": SCHEMA, "job": identity(job), "plan": run.plan.to_json(), "processes": asked_for}
        _write(home / PLAN, note)
        variables, fresh = (None, False) if team is None else (QUIET, True)
        with Worker(Path(name) / "worker", limits, variables, fresh=fresh) as worker:
            asked = {"keep": str(keep.absolute()), "identity": identity(job)}
            if team is None:
                worker.open(ENTRY, asked, (job, run.plan), Phase.LOAD)
                hand: Worker | RankHand = worker
            else:
                progress.stage("launch", f"{team.everyone} processes, {Layout.of(team.layout, team.everyone)}")
                hand = open_ranks(worker, team, job, run.plan, asked)
                progress.stage("prove", f"{run.plan}: steps of {team.everyone} processes against one")
                run = dataclasses.replace(run, parity=proved(hand, run.plan))
                run = dataclasses.replace(run, diagnosis_after=diagnosed(hand, run.diagnosis))
            restarts = Restarts(hand, progress, functools.partial(proved, plan=run.plan))
            final = _Drive(job, hand, progress, until, home / ACCOUNT, restarts).run(run)
            if team is not None:
                ranks = tuple(Rank(**one) for one in hand.call("readings", {}, Phase.CONVERT))
                seen = scaling_of(final, team) if len(ranks) == team.everyone else None  # none where machines have left
                final = dataclasses.replace(final, scaling=run.scaling or seen, ranks=ranks)
            hand.call("write_model", {"to": str((home / MODEL).absolute())}, Phase.CONVERT)
        with seeded(job.seed):
            model = job.model()
        load_model(model, home / MODEL)
        final = dataclasses.replace(final, model=model.eval())
        text = training_document(final).to_text()
        (home / RUN).write_text(text, encoding="utf-8")
        (home / PAGE).write_text(page_of(read_training(text)), encoding="utf-8")  # what `vivace report` writes again
        return final


def scaling_of(run: TrainingRun, team: Team) -> Scaling | None:
    """The step of all processes, the median of what was seen but for the first steps, beside that of one; None where
    too little was seen, or processes have left."""
    seen = [span.step_seconds for span in run.course.spans if span.step_seconds is not None and span.step > FIRST_STEPS]
    if not seen or run.restarts or team.everyone < 2:
        return None
    return Scaling(team.everyone, run.diagnosis.step_seconds, statistics.median(seen))


def took_part(job: Training, run: TrainingRun, limits: Limits, team: Team) -> TrainingRun:
    """Train on a machine other than the first of a team, which tells the processes here what to do; the run as it was.

    Raises WorkerFailure where the team has ended without being told to.
    """
    with tempfile.TemporaryDirectory(prefix="vivace-") as name, Worker(Path(name), limits, QUIET) as worker:
        keep = (run.out or Path(name)) / CHECKPOINTS
        open_ranks(worker, team, job, run.plan, {"keep": str(keep.absolute()), "identity": identity(job)})
        reason = worker.call("attend", {}, Phase.CONVERT, seconds=FOREVER_SECONDS)
    if reason:
        raise WorkerFailure(Outcome.CRASHED, reason)
    return run


def identity(job: Training) -> str:
    """What checkpoints must be of: the job's name and numbers, the names and shapes of its model's tensors, the
    settings of its optimizer, and the length of its data, where that is known."""
    with seeded(job.seed):
        model = job.model()
        groups = settings_of(job.optimizer(model.parameters()))
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    numbers = [job.name, job.batch_size, job.epochs, job.seed, job.shuffle, shapes, groups, length_of(job.data)]
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


def processes_of(folder: Path) -> int:
    """How many processes a run was asked to be of, whether or not that many trained."""
    found = strict_json.loads((folder / PLAN).read_text(encoding="utf-8")).get("processes", 1)
    return found if isinstance(found, int) else 1


def has_checkpoint(folder: Path) -> bool:
    """Whether a run's folder holds something to go on from."""
    return newest(folder / CHECKPOINTS) is not None


@dataclasses.dataclass
class _Drive:
    """Trains until the epochs are over or the score is reached, and keeps account. `opened` is what the worker told
    when it was ready: where the training is, and how many steps an epoch has, where that is known. Where ranks have had
    to start again (`restarts`), what they had done since their last checkpoint is taken out of the account. The file
    `kept` has the account as it was at checkpoints, for a run that goes on.
    """

    job: Training
    worker: Worker | RankHand
    progress: Progress
    until: float | None
    kept: Path
    restarts: Restarts
    account: Account = dataclasses.field(default_factory=Account)

    def __post_init__(self) -> None:
        self.clock = SystemClock()
        self.course = CourseKeeper()
        self.opened: Mapping[str, Any] = {}
        self.resumed: int | None = None
        self.began = self.saved = self.prepared = self.clock.now()
        self._before, self._steps = 0.0, 0
        self._kept: dict[int, Account] = {}

    def run(self, run: TrainingRun) -> TrainingRun:
        """Raises KeyboardInterrupt after Ctrl-C, with a checkpoint of the step that had begun."""
        with Stopping() as stopping:
            return self._train(run, stopping)

    def _train(self, run: TrainingRun, stopping: Stopping) -> TrainingRun:
        self.began = self.saved = self.clock.now()
        steps = self._prepare()
        while True:
            try:
                told, steps = self._advance(steps)
                reached, is_over = self._look(told, stopping)
            except Restarted as restart:
                self.restarts.begin(restart, self._steps)
                steps = self._prepare()
                continue
            if is_over:
                break
        account = self.account
        return dataclasses.replace(
            run, losses=tuple(account.losses), scores=tuple(account.scores), steps=told["position"]["steps"],
            seconds=self._elapsed(), prepare_seconds=self.prepared - self.began,
            epoch_seconds=tuple(account.epoch_seconds), peak_bytes=self.worker.peak_bytes,
            resumed_steps=self.resumed or 0, skipped_steps=account.skipped, restarts=tuple(self.restarts.told),
            reached=None if self.until is None else reached, course=self.course.course(),
        )  # fmt: skip

    def _prepare(self) -> int:
        """Let the parts be made, again where ranks die meanwhile; how many steps to take first."""
        while True:
            try:
                self.opened = self.worker.call("prepare", {}, Phase.CONVERT)
                break
            except Restarted as restart:
                self.restarts.begin(restart, self._steps)
        self._steps = steps = self.opened["steps"]
        self.restarts.end(steps)
        if self.resumed is None:
            self.resumed = steps
            known = read_account(self.kept, steps) if steps else None
            self._kept[steps] = known or Account()
            self._before = self._kept[steps].elapsed
            self.prepared = self.clock.now()
        self.account = copy.deepcopy(self._kept[steps])
        spans = self.account.course.spans
        self.course = CourseKeeper.of(self.account.course) if spans else CourseKeeper(steps)
        for note in self.opened["notes"]:
            self.progress.note(note)
        return FIRST_STEPS

    def _advance(self, steps: int) -> tuple[Mapping[str, Any], int]:
        """Some steps, taken into the account; and how many to take next."""
        started = self.clock.now()
        told: Mapping[str, Any] = self.worker.call("advance", {"steps": steps}, Phase.CONVERT)
        spent = self.clock.now() - started
        self.account.take_in(told["losses"], spent)
        if told["losses"]:
            self.course.steps(told["losses"], spent / len(told["losses"]), self._elapsed())
        self.account.skipped, self._steps = told["skipped"], told["position"]["steps"]
        if told["losses"]:
            each = spent / len(told["losses"])
            steps = max(1, min(MOST_STEPS, int(PATIENCE_SECONDS / max(each, 1e-9))))
            self.progress.stage("train", self._line(told["position"], told["losses"][-1], each))
        return told, steps

    def _look(self, told: Mapping[str, Any], stopping: Stopping) -> tuple[bool, bool]:
        """Score where an epoch has ended, and save where it is time: whether the score is reached, and all is over."""
        position = told["position"]
        reached = self._end_epoch() if position["batch"] == 0 and self.account.counted else False
        is_over = bool(told["is_over"] or reached)
        is_late = stopping.is_asked or self.clock.now() - self.saved > CHECKPOINT_SECONDS
        is_whole = self._left(position) != 0  # resumed with nothing left, it would lose the epoch
        if is_over or (is_late and is_whole):
            self._save(position["steps"])
        if stopping.is_asked and is_whole and not is_over:
            raise KeyboardInterrupt
        return reached, is_over

    def _elapsed(self) -> float:
        """Seconds of training, with those before it was resumed."""
        return self._before + self.clock.now() - self.began

    def _remember(self, steps: int) -> None:
        """What is known at a checkpoint of so many steps, and at the one before: the last may not be written whole."""
        self.account.elapsed, self.account.course = self._elapsed(), self.course.course()
        self._kept[steps] = copy.deepcopy(self.account)
        for old in sorted(self._kept)[:-2]:
            del self._kept[old]

    def _left(self, position: Mapping[str, Any]) -> int | None:
        """Steps that are left of the epoch, where that is known."""
        steps: int | None = self.opened["steps_an_epoch"]
        return None if steps is None else steps - int(position["batch"])

    def _end_epoch(self) -> bool:
        """Take in an epoch and its score; whether the score that was asked for is reached."""
        said, given = self.opened["steps_an_epoch"], self.account.counted
        if said is not None and given < said and self.resumed == 0:
            self.progress.note(f"the data gave {given} batches in an epoch, and say that they are {said} (len)")
            self.opened = {**self.opened, "steps_an_epoch": given}
        started = self.clock.now()
        score = self.worker.call("score", {}, Phase.CONVERT)
        took = self.clock.now() - started
        self.course.epoch(self._elapsed(), None if score is None else took)
        self.account.end_epoch(score)
        return self.until is not None and score is not None and score >= self.until

    def _save(self, steps: int) -> None:
        self._remember(steps)
        try:
            self.worker.call("save", {}, Phase.CONVERT)
            write_accounts(self.kept, self._kept)
        except WorkerFailure as failure:
            if failure.outcome is not Outcome.DISK_FULL:
                raise
            told = f"{failure.reason}; the checkpoint before it is kept: make room, and go on with resume (--resume)"
            raise DiskFull(told) from None
        self.saved = self.clock.now()

    def _line(self, position: Mapping[str, Any], loss: float, each: float) -> str:
        scores = self.account.scores
        score = f", score {scores[-1]:.4g}" if scores and scores[-1] is not None else ""
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
