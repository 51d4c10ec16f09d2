"""Keeps the course of a training in little room: neighbouring steps are put together when there are too many."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from vivace.core.documents import strict_json
from vivace.core.training.course import Course, EpochEnd, Span
from vivace.devices.disk import write_whole

MOST_SPANS = 500


class CourseKeeper:
    """Takes the steps of a training as they come, and keeps at most `most` spans of them.

    At first each step is a span of its own. As soon as there are `most`, neighbours are joined two by two, and from
    then on every span takes twice as many steps: spans are 1, 2, 4, ... steps long, but for the last one, which may
    be shorter. No step is left out: a span holds the mean of its losses and the lowest and the highest of them.

    >>> keeper = CourseKeeper(most=3)
    >>> keeper.steps([4.0, 3.0, 2.0, 1.0], step_seconds=0.5, elapsed_seconds=2.0)
    >>> [(span.step, span.steps, span.loss) for span in keeper.course().spans]
    [(2, 2, 3.5), (4, 2, 1.5)]
    """

    def __init__(self, first_step: int = 0, most: int = MOST_SPANS) -> None:
        self._step = first_step
        self._most = most
        self._length = 1
        self._whole: list[Span] = []
        self._begun: list[Span] = []
        self._begun_steps = 0
        self._epochs: list[EpochEnd] = []

    @classmethod
    def of(cls, course: Course, most: int = MOST_SPANS) -> CourseKeeper:
        """One that goes on from a course."""
        keeper = cls(course.spans[-1].step if course.spans else 0, most)
        keeper._length = max((span.steps for span in course.spans), default=1)
        keeper._whole = [span for span in course.spans if span.steps == keeper._length]
        keeper._begun = [span for span in course.spans if span.steps < keeper._length]
        keeper._begun_steps = sum(span.steps for span in keeper._begun)
        keeper._epochs = list(course.epochs)
        return keeper

    def steps(self, losses: list[float], step_seconds: float | None, elapsed_seconds: float) -> None:
        """Take in steps that were made together, the last of them after `elapsed_seconds` of training."""
        for number, loss in enumerate(losses, 1):
            self._step += 1
            ended = elapsed_seconds - (len(losses) - number) * (step_seconds or 0.0)
            self._begun.append(Span(self._step, 1, loss, loss, loss, step_seconds, ended))
            self._begun_steps += 1
            if self._begun_steps == self._length:
                self._close()

    def epoch(self, elapsed_seconds: float, score_seconds: float | None) -> None:
        """Take in the end of an epoch."""
        self._epochs.append(EpochEnd(self._step, elapsed_seconds, score_seconds))

    def course(self) -> Course:
        """What was kept so far."""
        last = [joined(self._begun)] if self._begun else []
        return Course((*self._whole, *last), tuple(self._epochs))

    def _close(self) -> None:
        self._whole.append(joined(self._begun))
        self._begun, self._begun_steps = [], 0
        if len(self._whole) >= self._most:
            pairs = [self._whole[place : place + 2] for place in range(0, len(self._whole), 2)]
            if len(pairs[-1]) == 1:
                self._begun, self._begun_steps = pairs.pop(), self._length
            self._whole = [joined(pair) for pair in pairs]
            self._length *= 2


def joined(spans: list[Span]) -> Span:
    """Spans that follow one another, as one."""
    steps = sum(span.steps for span in spans)
    timed = [span for span in spans if span.step_seconds is not None]
    counted = sum(span.steps for span in timed)
    seconds = math.fsum(span.steps * (span.step_seconds or 0.0) for span in timed) / counted if counted else None
    return Span(
        step=spans[-1].step,
        steps=steps,
        loss=math.fsum(span.steps * span.loss for span in spans) / steps,
        lowest=min(span.lowest for span in spans),
        highest=max(span.highest for span in spans),
        step_seconds=seconds,
        elapsed_seconds=spans[-1].elapsed_seconds,
    )


@checked
class Account:
    """What is known of a training so far: the mean loss, score and seconds of every epoch that is over, what was seen
    of the one that is not, steps that were left out, the seconds since it began, and the course."""

    losses: list[float] = dataclasses.field(default_factory=list)
    scores: list[float | None] = dataclasses.field(default_factory=list)
    epoch_seconds: list[float] = dataclasses.field(default_factory=list)
    summed: float = 0.0
    counted: int = 0
    spent: float = 0.0
    skipped: int = 0
    elapsed: float = 0.0
    course: Course = Course()

    def copied(self) -> Account:
        """As it is now."""
        return dataclasses.replace(
            self, losses=list(self.losses), scores=list(self.scores), epoch_seconds=list(self.epoch_seconds)
        )

    def take_in(self, losses: list[float], spent: float) -> None:
        """Steps of an epoch, which took so many seconds."""
        self.summed += math.fsum(losses)
        self.counted += len(losses)
        self.spent += spent

    def end_epoch(self, score: float | None) -> None:
        """The epoch is over."""
        self.losses.append(self.summed / self.counted)
        self.scores.append(score)
        self.epoch_seconds.append(self.spent)
        self.summed, self.counted, self.spent = 0.0, 0, 0.0


def write_accounts(file: Path, accounts: Mapping[int, Account]) -> None:
    """Keep what was known after so many steps: a whole file or none."""
    told = {str(steps): TypeAdapter(Account).dump_python(one, mode="json") for steps, one in accounts.items()}
    write_whole(file, json.dumps(told, allow_nan=False) + "\n")


def read_accounts(file: Path) -> dict[int, Account]:
    """What was known after so many steps, at each of the checkpoints that were kept; nothing where the file cannot be
    read."""
    try:
        told: Any = strict_json.loads(file.read_text(encoding="utf-8"))
        return {int(steps): TypeAdapter(Account).validate_python(one) for steps, one in told.items()}
    except (OSError, ValueError, AttributeError, TypeError, ValidationError):
        return {}
