"""The loop: epochs of steps from wherever the training is, a little at a time, so that whoever asks can watch."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from vivace.core.errors import UsageError, told_of
from vivace.core.training.job import Advance, Training
from vivace.core.training.rig import Rig
from vivace.training import checkpoint
from vivace.training.checkpoint import Damaged, Moment, Position
from vivace.training.feed import BatchFeed, DataFailed, no_batch, watched
from vivace.training.keeping import files
from vivace.training.keeping.own_state import OwnState
from vivace.training.rig import samples_in
from vivace.training.step import around, train_step

_END = object()
LOOK_EVERY = 16
"""Steps between two looks at the loss: looking waits for a device."""
MOST_HELD_BYTES = 64 << 20
"""Of weights, whose optimizer may hold as much twice more, in a checkpoint that is kept in memory."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """What happened since the last time: where the training is, the steps' losses, a score where an epoch ended.

    `skipped` counts the steps, of all so far, that were left out because scaled gradients were not finite; `batches`
    says how many the epoch had that has ended, where one has.
    """

    position: Position
    losses: tuple[float, ...]
    score: float | None
    is_over: bool
    skipped: int = 0
    batches: int | None = None


@dataclasses.dataclass(frozen=True)
class Last:
    """A batch that a step was taken on: its place, and itself unless the rig has cut it by itself; whether it is known
    to be the one of its place, which it is not in somebody else's loop."""

    epoch: int
    number: int
    batch: Any = None
    is_placed: bool = True


class Loop:
    """Trains a rig. `keep` is the folder of its checkpoints, `identity` what they must be of."""

    def __init__(self, job: Training, rig: Rig, keep: Path | None, identity: str) -> None:
        self.job = job
        self.rig = rig
        self.keep = keep
        self.identity = identity
        self.position = Position()
        self.notes: tuple[str, ...] = ()
        self._own = OwnState(job, rig)
        self._at_epoch = self._moment()
        self._batches: Iterator[Any] | None = None
        self._is_restored = False
        self._sure = 0
        self._held: files.Captured | None = None
        self._last: deque[Last] = deque(maxlen=2)

    def resume(self) -> Position:
        """Go to the newest checkpoint that can be read, if there is one; where that is. `notes` say what is amiss."""
        for found in reversed([] if self.keep is None else files.every(self.keep)):
            try:
                self.position, self._at_epoch, lost = checkpoint.restore(found, self.identity, self.rig, self._own)
            except Damaged as error:
                if self.rig.ranks is not None or found == files.every(found.parent)[0]:  # there is none before it
                    raise
                self.notes += (f"{str(error).rpartition('; ')[0]}; the one before it is gone on from",)
                files.remove(found)
                continue
            self._is_restored = self.position.batch > 0
            self.notes += tuple(f"not as it was when the run was stopped: {one}" for one in lost)
            self._go_on()
            break
        return self.position

    def _go_on(self) -> None:
        """Have a feed know that epochs are over, without drawing a number for that."""
        if self.position.epoch and isinstance(self.rig.feed, BatchFeed):
            now = self._moment()
            self.rig.feed.go_on(self.position.epoch)
            now.restore(self._own)

    def _moment(self) -> Moment:
        return Moment.now(self._own)

    def advance(self, steps: int) -> Progress:
        """Take at most so many steps, and stop at the end of an epoch, after which the model is scored.

        Raises UsageError where the loss is not finite.
        """
        if self.position.epoch >= self.job.epochs:
            return Progress(self.position, (), None, True)
        losses: list[torch.Tensor] = []
        taken, ended = 0, False
        with around(self.rig.outside):
            while taken < steps:
                found = self.some(steps - taken)
                if found is None:
                    ended = True
                    break
                losses.append(found)
                taken += len(found)
                if self.position.steps == 1 or taken % LOOK_EVERY == 0 or len(found) > 1:
                    self._check(found, losses)
            if losses:
                self._check(losses[-1], losses)
            values = tuple(torch.cat(losses).tolist()) if losses else ()
            batches = self.position.batch if ended else None
            score = self._end_epoch() if ended else None
        is_over = self.position.epoch >= self.job.epochs
        return Progress(self.position, values, score, is_over, self._skipped(), batches)

    def some(self, most: int) -> torch.Tensor | None:
        """Take at most so many steps, in whatever contexts the caller is in: as many as the rig takes in one go, or
        one; their losses. None at the end of the epoch, which stays open until `advance` closes it."""
        changes_each_step = self.rig.schedule is not None and self.job.advance is Advance.STEP
        if self.rig.several is None or self._batches is not None or changes_each_step:
            loss = self.step()
            return None if loss is None else loss.reshape(1)
        where = self.position
        if where.batch == self.rig.feed.steps():
            return None
        at_epoch = self._moment() if where.batch == 0 else self._at_epoch
        losses = self.rig.several(where.epoch, where.batch, most)
        if losses is None:
            loss = self.step()
            return None if loss is None else loss.reshape(1)
        self._at_epoch, self._is_restored = at_epoch, False
        self.position = Position(where.epoch, where.batch + len(losses), where.steps + len(losses))
        self._last.append(Last(where.epoch, self.position.batch - 1))
        return losses

    def step(self) -> torch.Tensor | None:
        """Take one step, in whatever contexts the caller is in; its loss. None at the end of the epoch, which stays
        open until `advance` closes it. Raises UsageError where the data fail, with a checkpoint kept."""
        if self._batches is None:
            self._batches = watched(self._begin_epoch(), self.position.epoch, self.position.batch)
        try:
            batch = next(self._batches, _END)
        except DataFailed as error:
            raise self._kept_of(error) from error
        if batch is _END:
            return None
        loss = train_step(self.rig, batch)
        where = self.position
        self._last.append(Last(where.epoch, where.batch, batch))
        self.position = Position(where.epoch, where.batch + 1, where.steps + 1)
        if self.job.advance is Advance.STEP:
            self._next_rate()
        return loss

    def _next_rate(self) -> None:
        """Let the schedule, if there is one, take its next value. Raises UsageError where it has none, with a
        checkpoint kept."""
        if self.rig.schedule is None:
            return
        try:
            self.rig.schedule.step()
        except Exception as error:  # the user's own code may raise anything
            told = f"the schedule fails after step {self.position.steps}: {told_of(error)}; {_RATES}"
            raise self._kept_of(UsageError(told)) from error

    def take_up(self, last: Last) -> None:
        """Have a step on this batch be the last one, which somebody else's loop has taken."""
        self._last.append(last)

    def last(self) -> Last | None:
        """The last batch that a step was taken on, or the one before it where that is larger, as before the smaller one
        that ends an epoch. None before the first step."""
        rows = samples_in if self.rig.ranks is None else self.rig.ranks.rows_of
        return max(
            reversed(self._last), key=lambda one: math.inf if one.batch is None else rows(one.batch), default=None
        )

    def _skipped(self) -> int:
        return 0 if self.rig.scaling is None else self.rig.scaling.skipped

    def look(self) -> None:
        """Raise StepChanged where steps were recorded and the last one would be another one by now."""
        if self.rig.look is not None and self._sure != self.position.steps:
            with around(self.rig.outside):
                self.rig.look()
        self._sure = self.position.steps

    def save(self, is_proved: bool = False) -> Path | None:
        """Keep a checkpoint of where the training is, whose last step was proved where that is said. Raises StepChanged
        as `look` does, and keeps none then."""
        self.look()
        if self.keep is None:
            return None
        self._check_weights()
        found = self._captured()
        if self.rig.ranks is None or self.rig.ranks.is_first:
            files.keep(self.keep, found, is_proved)
        if self.rig.ranks is not None:
            self.rig.ranks.meet("a checkpoint")
        return self.keep / found.name

    def _captured(self) -> files.Captured:
        return checkpoint.capture(self.identity, self.rig, self.position, self._at_epoch, self._moment())

    def _begin_epoch(self) -> Iterator[Any]:
        """The epoch's batches from where the training is. The order of an iterable may be drawn from the global
        generators when it is first asked, so after a restart they are what they were at the beginning of the epoch
        until then."""
        if not self._is_restored and self.position.batch == 0:
            self._at_epoch = self._moment()
            return self.rig.feed.epoch(self.position.epoch)
        if not self._is_restored:  # the batches before were taken in one go
            return self.rig.feed.epoch(self.position.epoch, skip=self.position.batch)
        self._is_restored = False
        now = self._moment()
        self._at_epoch.restore(self._own)
        batches = self.rig.feed.epoch(self.position.epoch, skip=self.position.batch)
        now.restore(self._own)
        return batches

    def _end_epoch(self) -> float | None:
        if self.position.batch == 0:
            raise no_batch(self.position.epoch)
        self.position = Position(self.position.epoch + 1, 0, self.position.steps)
        self._batches = None
        if self.job.advance is Advance.EPOCH:
            self._next_rate()
        with self.kept_if_it_fails():
            return self.score()

    @contextlib.contextmanager
    def kept_if_it_fails(self) -> Iterator[None]:
        """Where a score cannot be computed inside, keep a checkpoint, and say so in the UsageError."""
        try:
            yield
        except UsageError as error:
            self.save()
            raise UsageError(f"{error}; {self._kept(f'what was trained in {self.position.epoch} epochs')}") from error

    def _kept_of(self, error: UsageError) -> UsageError:
        """What to raise where the data or the schedule fail: a checkpoint is kept where one process trains and has
        taken a step."""
        steps = self.position.steps
        if steps and self.rig.ranks is None:
            self.save()
        return UsageError(f"{error}; {self._kept(f'what was trained in {steps} steps')}")

    def score(self) -> float | None:
        """The user's score of the model as it is; None without one. The model is in evaluation mode meanwhile."""
        if self.job.evaluate is None:
            return None
        return score_of(self.job, self.rig.model)

    def _check(self, last: torch.Tensor, losses: list[torch.Tensor]) -> None:
        """Raise UsageError where one of the last losses is not finite, with the first of all that is not."""
        if all(map(math.isfinite, last.tolist())):
            return
        values = torch.cat(losses).tolist()
        number = next((place for place, loss in enumerate(values) if not math.isfinite(loss)), None)
        assert number is not None
        step = self.position.steps - len(values) + number + 1
        raise UsageError(
            f"the loss is {values[number]} after step {step} (epoch {self.position.epoch}); allowed is a "
            "finite number: lower the learning rate, clip gradients, or look for a division by zero or a logarithm "
            f"of zero in the loss; {self._kept_up_to()}"
        )

    def hold(self) -> bool:
        """Keep a checkpoint in memory, which is written if a loss is not finite later; whether it is small enough."""
        weights = sum(one.numel() * one.element_size() for one in self.rig.model.parameters())
        if self.rig.ranks is not None or weights > MOST_HELD_BYTES:
            return False
        self._check_weights()
        self._held = self._captured()
        return True

    def _check_weights(self) -> None:
        """Raise UsageError where a weight is not finite, which no checkpoint is to hold."""
        if self.rig.ranks is not None:
            return
        learning = ((name, one) for name, one in self.rig.model.named_parameters() if one.requires_grad)
        bad = next((name for name, one in learning if not bool(one.detach().isfinite().all())), None)
        if bad is not None:
            raise UsageError(
                f"{bad} holds NaN or infinite values after step {self.position.steps}, though the loss was finite; "
                "allowed are finite numbers: lower the learning rate, clip gradients, or look for a square root or a "
                f"logarithm near zero in the loss, whose gradient is infinite; {self._kept_up_to()}"
            )

    def _kept_up_to(self) -> str:
        """What the newest checkpoint keeps, and how the training may come further than it did."""
        newest = None if self.keep is None else files.newest(self.keep)
        if self.keep is not None and self._held is not None and (newest is None or newest.name < self._held.name):
            files.keep(self.keep, self._held)
            newest = self.keep / self._held.name
        steps = 0 if newest is None else files.steps_of(newest)
        plan = self.rig.lineage if steps else ()
        hint = f"; without (--without) leaves out techniques of its plan, {' + '.join(plan)}" if plan else ""
        return f"{self._kept(f'what was trained in {steps} steps')}{hint}"

    def _kept(self, what: str) -> str:
        if self.keep is None or files.newest(self.keep) is None:
            return "there is no checkpoint yet"
        return f"{what} is kept in {self.keep}, and resume (--resume) goes on from there"


def score_of(job: Training, model: torch.nn.Module) -> float:
    """What a job's `evaluate` gives a model, which is in evaluation mode meanwhile.

    Raises UsageError where it fails, or gives something else than a finite number.
    """
    assert job.evaluate is not None
    model.eval()
    try:
        found = float(job.evaluate(model))
    except Exception as error:  # the user's own code may raise anything
        told = " ".join(str(error).split())
        raise UsageError(f"evaluate failed: {type(error).__name__}: {told}; {_SCORE}") from error
    finally:
        model.train()
    if not math.isfinite(found):
        raise UsageError(f"evaluate returned {found}; {_SCORE}")
    return found


_RATES = (
    "allowed is one that has a value for every epoch of the training, or with advance='step' for every step, or a "
    "score to stop at (until, --until) that is reached before it ends"
)
_SCORE = "allowed is a function (model) -> finite number, higher is better, or no evaluate at all"
