"""What `predict` answers. Every number is PREDICTED: a model's, with its interval; none was timed on the hardware
that it is about."""

from __future__ import annotations

import dataclasses

from vivace.core.measurement import Interval
from vivace.core.prediction.layout import Layout, Memory, Parts
from vivace.core.prediction.work import Counted

LABEL = "PREDICTED"


@dataclasses.dataclass(frozen=True)
class Line:
    """What a step takes on `count` of one device, PREDICTED.

    `seconds` are those of a step (a call, or an update), None where it was refused; `refusal` then names the boundary
    that no measurement lies beyond, and `cannot_run` says that it is none of measurement: the batch does not divide, or
    it does not fit. `floor_seconds` is the least that the device's peaks allow, whatever the program;
    None where the catalogue lacks them. `samples_per_second` are of all devices together. `joules` and `cost` are of a
    step on all of them: at the power of the data sheet, which is an upper bound, and at the price that the user gave.
    `basis` says what the efficiencies and the interval were learned from.
    """

    device: str
    count: int
    precision: str
    seconds: Interval | None = None
    samples_per_second: Interval | None = None
    floor_seconds: float | None = None
    bound: str = ""
    parts: Parts | None = None
    memory: Memory | None = None
    joules: Interval | None = None
    cost: Interval | None = None
    target_seconds: Interval | None = None
    basis: str = ""
    refusal: str = ""
    cannot_run: bool = False
    label: str = LABEL


@dataclasses.dataclass(frozen=True)
class ToTarget:
    """How long a target score takes on `count` of a device with updates of `batch` samples, PREDICTED."""

    device: str
    count: int
    batch: int
    seconds: Interval
    label: str = LABEL


@dataclasses.dataclass(frozen=True)
class LayoutLine:
    """One layout of a training, PREDICTED: its step, what a device holds, and why it is slower than the first."""

    layout: Layout
    seconds: Interval
    memory: Memory
    parts: Parts
    reason: str = ""
    label: str = LABEL


@dataclasses.dataclass(frozen=True)
class Layouts:
    """The best layouts of a model on so many of one device, fastest first, and why how many others are out.

    `considered` are all that divide the model and the batch. Where none can be ranked, `best` is empty and `refusal`
    says why.
    """

    device: str
    count: int
    batch: int
    best: tuple[LayoutLine, ...]
    refused: tuple[tuple[str, int], ...]
    considered: int
    basis: str
    refusal: str = ""


@dataclasses.dataclass(frozen=True)
class Limit:
    """One limit on a large run: the share of its time that is lost to it, or None where a number is missing; what was
    assumed, and where that comes from."""

    name: str
    lost: Interval | None
    assumption: str
    source: str


@dataclasses.dataclass(frozen=True)
class Scale:
    """What binds a run on more devices than were measured, the worst first, PREDICTED; no total is given.

    `hours_between_failures` and `checkpoint_interval_seconds` are the failures' own numbers. `computing_seconds` are
    what each device computes for in a step, which the network's and the input's shares rest on, and `basis` says by
    which law.
    """

    device: str
    count: int
    limits: tuple[Limit, ...]
    hours_between_failures: Interval
    checkpoint_interval_seconds: Interval
    computing_seconds: Interval
    basis: str
    label: str = LABEL

    @property
    def binding(self) -> str:
        """The limit that most of the time is lost to."""
        return self.limits[0].name


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What `predict` answers: the counted work, one line for each device and count, the layouts that were asked for,
    what would bind counts beyond every measurement, the time to a target score by the batch, and what the reader should
    know."""

    work: Counted
    lines: tuple[Line, ...]
    layouts: tuple[Layouts, ...] = ()
    scale: tuple[Scale, ...] = ()
    targets: tuple[ToTarget, ...] = ()
    notes: tuple[str, ...] = ()

    def line(self, device: str, count: int = 1) -> Line:
        """The line of one device and count. Raises KeyError where there is none."""
        for line in self.lines:
            if (line.device, line.count) == (device, count):
                return line
        raise KeyError(
            f"no line of {count} x {device}; there are {', '.join(f'{x.count} x {x.device}' for x in self.lines)}"
        )
