"""How a training went: its steps, thinned so that hours of them can be kept, and its epochs, with the time of each."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Span:
    """`steps` steps that followed one another, up to the step of this number, counted from 1.

    `loss` is their mean loss, between `lowest` and `highest`. `step_seconds` is what one of them took, waiting for its
    batch included: the mean over all steps that were asked for together, half a second or so; None where a score was
    made in that time. `elapsed_seconds` is how long the training had run when the last of them ended.
    """

    step: int
    steps: int
    loss: float
    lowest: float
    highest: float
    step_seconds: float | None
    elapsed_seconds: float


@dataclasses.dataclass(frozen=True)
class EpochEnd:
    """The end of an epoch: after how many steps, after how many seconds of training, and how many of these its score
    took; None where that was not timed by itself."""

    step: int
    elapsed_seconds: float
    score_seconds: float | None


@dataclasses.dataclass(frozen=True)
class Course:
    """All steps of a training as spans, in order, and the ends of its epochs. Seconds are MEASURED.

    Spans are equally long but for the last one. `training.course` says when they grow.
    """

    spans: tuple[Span, ...] = ()
    epochs: tuple[EpochEnd, ...] = ()
