"""Scales: from values to places on a drawing, linear or logarithmic, with ticks that people can read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

MOST_TICKS = 7
LOG_FROM = 3.0
"""Positive values whose largest is this many times the smallest are shown on a logarithmic axis."""
PADDING = 0.06
LARGEST, SMALLEST = 1e100, 1e-12
"""Values beyond LARGEST are as good as infinite. A range that is smaller than this share of its ends is none."""
LINEAR_STEPS = (1, 2, 2.5, 5, 10)
LOG_STEPS = ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,))
"""What is tried within a power of ten, the closest first."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` lie from `start` to `end` on the drawing. What is outside is put at the edge.

    >>> Scale(0, 10, 100, 200).at(5), Scale(1, 100, 0, 1, is_log=True).at(10), Scale(0, 1, 0, 9).at(math.inf)
    (150.0, 0.5, 9.0)
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def at(self, value: float) -> float:
        """The place of a value; a value that is not a number lies at the low edge."""
        inside = self.low if math.isnan(value) else min(max(value, self.low), self.high)
        low, high, here = (math.log(v) if self.is_log else v for v in (self.low, self.high, inside))
        return self.start + (here - low) / (high - low) * (self.end - self.start)

    def holds(self, value: float) -> bool:
        """Whether a value is within the scale."""
        return self.low <= value <= self.high

    def ticks(self, most: int = MOST_TICKS) -> list[float]:
        """Round values within the scale, at most about `most` of them."""
        if self.is_log and self.high / self.low >= LOG_FROM:
            return _log_ticks(self.low, self.high, most)
        return _linear_ticks(self.low, self.high, most)


def linear(values: Iterable[float], start: float, end: float, include: Sequence[float] = ()) -> Scale:
    """A scale that holds the finite values with some room around them, and `include` with none beyond.

    >>> scale = linear([2.0, 8.0], 0, 100, include=(0,))
    >>> scale.low, round(scale.high, 2)
    (0, 8.48)
    """
    found = [value for value in (*values, *include) if abs(value) <= LARGEST] or [0.0, 1.0]
    low, high = min(found), max(found)
    if high - low <= SMALLEST * max(abs(low), abs(high), SMALLEST):
        low, high = (low - abs(low) / 2, high + abs(high) / 2) if abs(low) > SMALLEST else (0.0, 1.0)
    room = PADDING * (high - low)
    return Scale(low if low in include else low - room, high if high in include else high + room, start, end)


def logarithmic(values: Iterable[float], start: float, end: float) -> Scale:
    """A logarithmic scale that holds the finite values above zero with some room around them."""
    found = [value for value in values if 1 / LARGEST <= value <= LARGEST] or [1.0]
    low, high = min(found), max(found)
    room = max((high / low) ** PADDING, 1.05 if low == high else 1.001)
    return Scale(low / room, high * room, start, end, is_log=True)


def fitting(values: Sequence[float], start: float, end: float, include: Sequence[float] = ()) -> Scale:
    """A logarithmic scale where the values span more than LOG_FROM, else a linear one."""
    found = [value for value in (*values, *include) if abs(value) <= LARGEST]
    if found and min(found) > 0 and max(found) / min(found) >= LOG_FROM:
        return logarithmic(found, start, end)
    return linear(values, start, end, include)


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    step = _nice((high - low) / max(most - 1, 1))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12 - math.floor(math.log10(step))) for number in range(first, last + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in LOG_STEPS:
        found = [float(f"{step}e{power}") for power in exponents for step in steps]
        found = [value for value in found if low <= value <= high]
        if len(found) <= most:
            return found
    stride = math.ceil(len(found) / most)
    return found[::stride]


def _nice(rough: float) -> float:
    """The next of LINEAR_STEPS times a power of ten.

    >>> _nice(0.3), _nice(12.0)
    (0.5, 20.0)
    """
    power = 10.0 ** math.floor(math.log10(rough))
    return float(next(step for step in LINEAR_STEPS if step * power >= rough * (1 - 1e-9)) * power)
