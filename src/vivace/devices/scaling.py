"""The laws of parallel speed-up, Amdahl's and Gustafson's, and the serial part that measurements of either imply."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from enum import Enum

from vivace.core.errors import UsageError
from vivace.core.measurement import Interval

# Two-sided 95% quantiles of Student's t by degrees of freedom, to three places, as any table of statistics has them.
T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
NORMAL95 = 1.960


class Law(Enum):
    """AMDAHL: the work stays as it is. GUSTAFSON: the work grows with the workers, the time stays as it is."""

    AMDAHL = "amdahl"
    GUSTAFSON = "gustafson"


def amdahl(serial: float, workers: float) -> float:
    """The speed-up of a fixed amount of work: S = 1 / (s + (1 - s) / n).

    `serial` (s) is the share of one worker's time that cannot be split. Source: Amdahl, AFIPS 1967.

    >>> round(amdahl(0.05, 16), 2)
    9.14
    """
    _check(serial, workers)
    return 1.0 / (serial + (1.0 - serial) / workers)


def gustafson(serial: float, workers: float) -> float:
    """The speed-up of work that grows with the workers: S = n - s (n - 1).

    `serial` (s) is the share of the parallel run's time. Source: Gustafson, Communications of the ACM 31(5), 1988.

    >>> round(gustafson(0.05, 16), 2)
    15.25
    """
    _check(serial, workers)
    return workers - serial * (workers - 1.0)


def speedup(law: Law, serial: float, workers: float) -> float:
    """The speed-up that a law gives."""
    return amdahl(serial, workers) if law is Law.AMDAHL else gustafson(serial, workers)


@dataclasses.dataclass(frozen=True)
class Implied:
    """What one measured speed-up implies: the serial part, the most that any number of workers gives by Amdahl, and by
    Gustafson the work that these workers do in the time of one."""

    serial: float
    limit: float
    scaled_speedup: float


def implied(workers: int, ratio: float) -> Implied:
    """The serial part e that Amdahl's law needs for a speed-up S of n workers: e = (1/S - 1/n) / (1 - 1/n).

    It holds waiting and communication too, and is negative where more than n is gained; there is no limit then.
    Source: Karp and Flatt, Communications of the ACM 33(5), 1990. Raises UsageError for fewer than 2 workers, and for a
    speed-up that is not above 0.

    >>> found = implied(4, 2.5)
    >>> round(found.serial, 2), round(found.limit, 1), round(found.scaled_speedup, 1)
    (0.2, 5.0, 3.4)
    """
    if workers < 2 or not ratio > 0:
        raise UsageError(f"workers is {workers} and ratio {ratio}; allowed are 2 workers or more and a ratio above 0")
    x, y = _on_line(Law.AMDAHL, workers, ratio)
    serial = y / x
    return Implied(serial, 1 / serial if serial > 0 else math.inf, workers - serial * (workers - 1.0))


def fitted_serial(law: Law, speedups: Mapping[int, float]) -> Interval:
    """The serial part that measured speed-ups imply, with its 95% interval, each within 0 and 1.

    `speedups` maps a count of workers to the measured speed-up over one; a count of 1 says nothing and is left out.
    Both laws are a line through the origin in s: 1/S - 1/n = s (1 - 1/n), and n - S = s (n - 1). The line is fitted by
    least squares; the interval is Student's, with one degree of freedom less than there are counts, so that two counts
    give a very wide one. A speed-up above the count of workers gives 0.

    Raises UsageError for fewer than two counts above 1, and for a count or a speed-up that is not above 0.

    >>> found = fitted_serial(Law.AMDAHL, {2: amdahl(0.1, 2), 4: amdahl(0.1, 4), 8: amdahl(0.1, 8)})
    >>> round(found.value, 6), round(found.low, 6), round(found.high, 6)
    (0.1, 0.1, 0.1)
    """
    if any(workers < 1 or not ratio > 0 for workers, ratio in speedups.items()):
        raise UsageError(f"speedups is {dict(speedups)}; allowed are counts of 1 or more and speed-ups above 0")
    points = [_on_line(law, workers, ratio) for workers, ratio in sorted(speedups.items()) if workers > 1]
    if len(points) < 2:
        raise UsageError(
            f"speedups has {len(points)} counts above 1; give at least two, since one leaves no way to tell how far "
            "off the law is"
        )
    squares = sum(x * x for x, _ in points)
    value = sum(x * y for x, y in points) / squares
    spread = math.sqrt(sum((y - value * x) ** 2 for x, y in points) / (len(points) - 1) / squares)
    reach = t95(len(points) - 1) * spread
    return Interval(*(min(1.0, max(0.0, bound)) for bound in (value, value - reach, value + reach)))


def serial_part(law: Law, speedups: Mapping[int, Interval]) -> Interval:
    """The serial part of measured speed-ups that have intervals: fitted where there are two counts above 1 or more, by
    `fitted_serial`; else the one that the single count implies, with the interval that follows from the speed-up's own.

    Raises UsageError as `fitted_serial` does, and where no count is above 1.

    >>> serial_part(Law.AMDAHL, {2: Interval(1.6, 4 / 3, 2.0)})
    Interval(value=0.25, low=0.0, high=0.5)
    """
    above = {workers: ratio for workers, ratio in speedups.items() if workers > 1}
    if len(above) != 1:
        return fitted_serial(law, {workers: ratio.value for workers, ratio in above.items()})
    ((workers, ratio),) = above.items()
    points = [_on_line(law, workers, bound) for bound in (ratio.value, ratio.high, ratio.low)]
    return Interval(*(round(min(1.0, max(0.0, y / x)), 12) for x, y in points))


def t95(freedom: int) -> float:
    """The two-sided 95% quantile of Student's t; the normal one beyond the table, which is 2% less at most.

    >>> t95(1), t95(1000)
    (12.706, 1.96)
    """
    return T95[freedom - 1] if freedom <= len(T95) else NORMAL95


def _on_line(law: Law, workers: float, ratio: float) -> tuple[float, float]:
    if law is Law.AMDAHL:
        return 1.0 - 1.0 / workers, 1.0 / ratio - 1.0 / workers
    return workers - 1.0, workers - ratio


def _check(serial: float, workers: float) -> None:
    if not 0 <= serial <= 1:
        raise UsageError(f"serial is {serial}; allowed is a share of 0 to 1")
    if workers < 1:
        raise UsageError(f"workers is {workers}; allowed is 1 or more")
