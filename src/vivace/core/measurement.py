"""The words for what was measured: an interval, a verdict on speed, an outcome of a trial."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from enum import Enum


class SpeedVerdict(Enum):
    """What a comparison of two arms concluded."""

    FASTER = "FASTER"
    SLOWER = "SLOWER"
    SAME = "SAME"
    UNDECIDED = "UNDECIDED"


class Outcome(Enum):
    """How the trial of one plan ended."""

    OK = "ok"
    UNSUPPORTED = "unsupported"
    CONVERT_FAILED = "convert_failed"
    CRASHED = "crashed"
    TIMEOUT = "timeout"
    OOM = "oom"
    NONFINITE = "nonfinite"
    WRONG_OUTPUT = "wrong_output"
    QUALITY_FAILED = "quality_failed"
    QUALITY_UNKNOWN = "quality_unknown"
    NOT_FASTER = "not_faster"
    CANCELLED = "cancelled"
    DISK_FULL = "disk_full"
    INFRA_ERROR = "infra_error"


@dataclasses.dataclass(frozen=True)
class Interval:
    """A value with its 95% interval: `low <= value <= high`."""

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"not an interval: low={self.low}, value={self.value}, high={self.high}")

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclasses.dataclass(frozen=True)
class Quantile:
    """A quantile of an arm's call times: this `share` of all calls takes at most `seconds`.

    `low_seconds` and `high_seconds` are its two-sided 95% interval by order statistics, whatever the distribution; None
    where there are too few calls for that end.
    """

    share: float
    seconds: float
    low_seconds: float | None
    high_seconds: float | None


@dataclasses.dataclass(frozen=True)
class ArmTimes:
    """How long one arm took: medians, percentiles and the costs that are paid once. Seconds.

    `p99_seconds` is None when too few calls were made to estimate it; `steady` is False when the arm never settled.
    For calls that come in several shapes `shape_seconds` are the medians of each, and `median_seconds` their mean by
    the weights of the shapes: what a call of the mix takes.
    `quantiles` are p50, p90 and p99 of all timed calls, and `spread_seconds` those calls' times at evenly spaced shares
    from the shortest to the longest: their empirical distribution.
    """

    median_seconds: float
    p90_seconds: float | None
    p99_seconds: float | None
    calls: int
    load_seconds: float
    first_call_seconds: float
    steady: bool
    peak_memory_bytes: int
    shape_seconds: tuple[float, ...] = ()
    quantiles: tuple[Quantile, ...] = ()
    spread_seconds: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A paired comparison of a baseline and a candidate.

    `speedup` is baseline_seconds / candidate_seconds. `noise_floor` is the half-width and offset of the session's A/A
    pair, as a share. `ratios` are the per-block ratios in time order, one tuple a restart: the raw evidence.
    """

    speedup: Interval
    verdict: SpeedVerdict
    baseline: ArmTimes
    candidate: ArmTimes
    blocks: int
    restarts: int
    noise_floor: float
    ratios: tuple[tuple[float, ...], ...]
    note: str = ""


def seconds_at(baseline_seconds: float, speedup: Interval) -> Interval:
    """The seconds of a candidate that is this much faster than a baseline of so many seconds, with their interval.

    Only the ratio was measured in pairs, so this puts candidates of different pairs on the axis of one baseline. A
    ratio of zero takes infinitely long, an infinite one no time.

    >>> seconds_at(2.0, Interval(4.0, 2.0, 8.0))
    Interval(value=0.5, low=0.25, high=1.0)
    """
    value, low, high = (_over(baseline_seconds, ratio) for ratio in (speedup.value, speedup.high, speedup.low))
    return Interval(value, low, high)


def dominated(points: Sequence[tuple[float, float]]) -> tuple[bool, ...]:
    """Of points whose coordinates are both to be small: whether another is no larger in both and smaller in one.

    Points that are equal do not dominate each other. What is not dominated is the Pareto front.

    >>> dominated([(1.0, 0.2), (2.0, 0.1), (2.0, 0.2), (1.0, 0.2)])
    (False, False, True, False)
    """
    return tuple(any(_beats(other, point) for other in points) for point in points)


def _over(seconds: float, ratio: float) -> float:
    if math.isinf(ratio):
        return 0.0
    return seconds / ratio if ratio else math.inf


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] <= other[0] and one[1] <= other[1]
