"""Intervals of what is estimated by counting: exact ones of a proportion, and of weighted sums of independent
estimates."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vivace.core.errors import UsageError
from vivace.core.measurement import Interval

CONFIDENCE = 0.95


def proportion(successes: int, trials: int, confidence: float = CONFIDENCE) -> Interval:
    """The share of successes with its interval, which holds the true share at least as often as `confidence` says.

    Source: Clopper and Pearson, Biometrika 26 (1934): the shares that an exact test at (1 - confidence) / 2 on each
    side does not reject. Raises UsageError unless 0 <= successes <= trials, trials > 0 and 0 < confidence < 1.

    >>> proportion(50, 100)
    Interval(value=0.5, low=0.398..., high=0.601...)
    """
    if not 0 <= successes <= trials or trials <= 0 or not 0 < confidence < 1:
        raise UsageError(
            f"{successes} of {trials} at a confidence of {confidence} gives no interval; allowed are counts from 0 to "
            "the number of trials, 1 or more, and a confidence between 0 and 1"
        )
    from scipy.special import betaincinv  # comes with qiskit, which needs it

    tail = (1 - confidence) / 2
    failures = trials - successes
    low = 0.0 if successes == 0 else float(betaincinv(successes, failures + 1, tail))
    high = 1.0 if failures == 0 else float(betaincinv(successes + 1, failures, 1 - tail))
    value = successes / trials
    return Interval(value, min(low, value), max(high, value))


def expectation(plus: int, shots: int, confidence: float = CONFIDENCE) -> Interval:
    """The mean of an observable that reads +1 in `plus` of `shots` and else -1: 2 p - 1.

    >>> expectation(100, 100).high
    1.0
    """
    share = proportion(plus, shots, confidence)
    return scaled(share, 2.0, -1.0)


def scaled(found: Interval, factor: float, shift: float = 0.0) -> Interval:
    """The interval of factor * value + shift.

    >>> scaled(Interval(0.5, 0.25, 1.0), -2.0)
    Interval(value=-1.0, low=-2.0, high=-0.5)
    """
    value, low, high = (factor * one + shift for one in (found.value, found.low, found.high))
    low, high = min(low, high), max(low, high)
    return Interval(value, min(low, value), max(high, value))


def total(parts: Sequence[Interval], shift: float = 0.0) -> Interval:
    """The sum of independent estimates, with an interval of the confidence that the parts have.

    The distances of the parts' limits from their values add in squares: the method of variance estimates recovery, Zou
    and Donner, Statistics in Medicine 27 (2008), 1693-1702.

    >>> total([Interval(1.0, 0.7, 1.3), Interval(2.0, 1.6, 2.4)])
    Interval(value=3.0, low=2.5, high=3.5)
    """
    value = math.fsum(part.value for part in parts) + shift
    below = math.sqrt(math.fsum((part.value - part.low) ** 2 for part in parts))
    above = math.sqrt(math.fsum((part.high - part.value) ** 2 for part in parts))
    return Interval(value, value - below, value + above)


def holds(found: Interval, value: float) -> bool:
    """Whether an interval holds a value; rounding of the last digits does not decide.

    >>> holds(Interval(0.0, -0.1, 0.1), 0.1), holds(Interval(0.0, -0.1, 0.1), 0.2)
    (True, False)
    """
    room = 1e-9 * max(1.0, abs(value))
    return found.low - room <= value <= found.high + room
