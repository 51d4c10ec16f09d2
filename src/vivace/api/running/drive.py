"""Drives a training: asks its worker for steps, keeps account, scores at the ends of epochs, saves in between."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vivace.api.running.earlier import write_chosen
from vivace.api.running.folder import CHECKPOINTS
from vivace.api.running.proofs import LaterProofs
from vivace.api.running.stopping import Stopping
from vivace.api.together.restarts import Restarts
from vivace.api.together.team import RankHand, Restarted
from vivace.core.errors import DiskFull, UsageError, WorkerFailure, lacks_room
from vivace.core.measurement import Outcome
from vivace.core.quality import QualityVerdict
from vivace.core.training.job import Training
from vivace.core.training.run import TrainingRun
from vivace.devices.disk import room_for
from vivace.measure.clock import SystemClock
from vivace.measure.process import Phase, Worker
from vivace.report.duration import show_duration
from vivace.report.progress import Progress
from vivace.training.course import Account, CourseKeeper, read_accounts, write_accounts
from vivace.training.keeping import files

PATIENCE_SECONDS, CHECKPOINT_SECONDS = 0.5, 30.0
"""How long the worker trains before it is asked how far it is, and between two checkpoints."""
SAVING_SHARE = 0.02
"""Of the time since the last checkpoint, so much may one at the end of an epoch take; the first epoch's is kept in any
case."""
FIRST_STEPS, MOST_STEPS = 8, 10_000


@dataclasses.dataclass
class Drive:
    """Trains until the epochs are over or the score is reached, and keeps account. `opened` is what the worker told
    when it was ready: where the training is, and how many steps an epoch has, where that is known. Where ranks have had
    to start again (`restarts`), what they had done since their last checkpoint is taken out of the account. The file
    `kept` has the account as it was at checkpoints, for a run that goes on. Before each of them `proofs` prove a step
    of the run's own.
    """

    job: Training
    worker: Worker | RankHand
    progress: Progress
    until: float | None
    kept: Path
    restarts: Restarts
    proofs: LaterProofs
    is_again: bool = False
    """Whether this session has trained before, and something was taken out since."""
    account: Account = dataclasses.field(default_factory=Account)
    _run: TrainingRun = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.clock = SystemClock()
        self.course = CourseKeeper()
        self.opened: Mapping[str, Any] = {}
        self.resumed: int | None = None
        self.began = self.saved = self.prepared = self.clock.now()
        self._before = self._saving_seconds = 0.0
        self._steps = 0
        self._kept: dict[int, Account] = {}
        self._held: dict[int, Account] = {}

    def run(self, run: TrainingRun) -> TrainingRun:
        """Raises KeyboardInterrupt after Ctrl-C, with a checkpoint of the step that had begun."""
        self._run = run
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
            resumed_steps=run.resumed_steps if self.is_again else self.resumed or 0, skipped_steps=account.skipped,
            restarts=tuple(self.restarts.told),
            reached=None if self.until is None else reached, course=self.course.course(),
            proofs=tuple(self.proofs.found), unproved=self.proofs.unproved(told["position"]["steps"]),
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
            self._kept = {at: one for at, one in read_accounts(self.kept).items() if at <= steps} if steps else {}
            self._kept.setdefault(steps, Account())
            self.proofs.begin(steps, self.opened["steps_of_a_proof"])
            self._before = self._kept[steps].elapsed
            self.prepared = self.clock.now()
        else:
            self.proofs.again(steps)
        self.account = self._kept[steps].copied()
        spans = self.account.course.spans
        self.course = CourseKeeper.of(self.account.course) if spans else CourseKeeper(steps)
        for note in self.opened["notes"]:
            self.progress.note(note)
        return FIRST_STEPS

    def _advance(self, steps: int) -> tuple[Mapping[str, Any], int]:
        """Some steps, taken into the account; and how many to take next."""
        started = self.clock.now()
        try:
            told: Mapping[str, Any] = self.worker.call("advance", {"steps": steps}, Phase.CONVERT)
        except UsageError:  # the worker may have written what it held
            write_accounts(self.kept, self._kept | self._held)
            raise
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
        wanted = self.opened["batches_of_samples"]
        if wanted is not None and told["batches"] is not None:
            epoch, steps = position["epoch"] - 1, position["steps"]
            self.proofs.epoch(epoch, told["batches"], wanted, steps, self.resumed or 0)
        if told["is_over"]:  # before the last score, which may set what is for steps that come after it
            self._prove(position["steps"], is_last=True)
        reached = self._end_epoch() if position["batch"] == 0 and self.account.counted else False
        is_over = bool(told["is_over"] or reached)
        is_late = stopping.is_asked or self._is_due(position)
        is_whole = self._left(position) != 0  # resumed with nothing left, it would lose the epoch
        if is_over or (is_late and is_whole):
            self._save(position["steps"], is_over)
        elif position["batch"] == 0 and self.account.losses and self.worker.call("hold", {}, Phase.CONVERT):
            self._held = {position["steps"]: self._account_now()}
        if stopping.is_asked and is_whole and not is_over:
            raise KeyboardInterrupt
        return reached, is_over

    def _is_due(self, position: Mapping[str, Any]) -> bool:
        """Whether a checkpoint is: the last is old, or an epoch is over, which a loss that is NaN later must not take
        away."""
        since = self.clock.now() - self.saved
        is_cheap = position["batch"] == 0 and self._saving_seconds <= SAVING_SHARE * since
        return is_cheap or since > CHECKPOINT_SECONDS

    def _elapsed(self) -> float:
        """Seconds of training, with those before it was resumed."""
        return self._before + self.clock.now() - self.began

    def _remember(self, steps: int) -> None:
        """What is known at a checkpoint of so many steps, and at the one before: the last may not be written whole."""
        self._kept[steps] = self._account_now()
        proved = {one.step for one in self.proofs.found if one.verdict is QualityVerdict.HELD}
        begun = max((at for at, one in self._kept.items() if at in proved and not one.counted), default=0)
        for old in sorted(self._kept)[:-2]:
            if old not in (self.proofs.proved_steps, begun):
                del self._kept[old]

    def _account_now(self) -> Account:
        self.account.elapsed, self.account.course = self._elapsed(), self.course.course()
        return self.account.copied()

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

    def _save(self, steps: int, is_last: bool) -> None:
        is_proved = self._prove(steps, is_last)
        self._remember(steps)
        began = self.clock.now()
        try:
            with room_for("the account of a checkpoint", self.kept.parent):
                write_accounts(self.kept, self._kept)  # first: it also has what was known at the checkpoint before
            self.worker.call("save", {"is_proved": is_proved}, Phase.CONVERT)
            if is_proved:
                write_chosen(self.kept.parent, dataclasses.replace(self._run, proofs=tuple(self.proofs.found)))
        except (WorkerFailure, OSError) as failure:
            told = full_disk(failure)
            if told is None:
                raise
            raise DiskFull(f"{told}; {self._how_to_go_on()}") from None
        self.saved = self.clock.now()
        self._saving_seconds = self.saved - began

    def _how_to_go_on(self) -> str:
        newest = files.newest(self.kept.parent / CHECKPOINTS)
        if newest is None:
            return "there is no checkpoint yet: make room, or give another out (--out)"
        kept = "the checkpoint before it is kept: make room, and go on with resume (--resume)"
        return f"{kept} after step {files.steps_of(newest)}"

    def _prove(self, steps: int, is_last: bool) -> bool:
        """Whether the step taken now is proved. Raises StepDiffers where it is not the original's."""
        return self.proofs.prove(self.worker, steps, self._elapsed(), self.resumed or 0, is_last)

    def _line(self, position: Mapping[str, Any], loss: float, each: float) -> str:
        scores = self.account.scores
        score = f", score {scores[-1]:.4g}" if scores and scores[-1] is not None else ""
        epoch = min(position["epoch"] + 1, self.job.epochs)
        where = f"epoch {epoch} of {self.job.epochs}, step {position['steps']}"
        an_epoch = self.opened["steps_an_epoch"]
        seconds = None if an_epoch is None else (an_epoch * self.job.epochs - position["steps"]) * each
        left = "" if seconds is None else f", at most {show_duration(seconds)} left"
        return f"{where}: loss {loss:.4g}{score}, {each * 1e3:.3g} ms a step{left}"


def full_disk(failure: WorkerFailure | OSError) -> str | None:
    """How a failure says that the disk is full; None where it is another one."""
    if isinstance(failure, WorkerFailure):
        return failure.reason if failure.outcome is Outcome.DISK_FULL else None
    return str(failure) if lacks_room(failure) else None
