"""When a change has paid for itself: what is paid once against the seconds that each call saves."""

from __future__ import annotations

import math

from vivace.core.measurement import ArmTimes, Comparison, SpeedVerdict
from vivace.core.result import Trial


def break_even_calls(trial: Trial) -> int | None:
    """From how many calls on a confirmed trial has saved the time that it cost; None if it never does.

    The cost is building it, loading it and its first call, less the original's loading and first call. The original's
    loading leaves out its own constructor, so the count is rather too high than too low.

    Raises ValueError for a trial that was not confirmed.
    """
    comparison = _confirmed(trial)
    saved = comparison.baseline.median_seconds - comparison.candidate.median_seconds
    if saved <= 0:
        return None
    extra = trial.build_seconds + opening_seconds(trial) - _once(comparison.baseline)
    return max(1, math.ceil(extra / saved))


def break_even_steps(comparison: Comparison | None, spent_seconds: float) -> int | None:
    """From how many training steps on a plan has saved the time that was spent on choosing it; None where it was not
    shown to be faster.

    >>> times = [ArmTimes(median, None, None, 9, 0.0, 0.0, True, 0) for median in (0.004, 0.003)]
    >>> from vivace.core.measurement import Interval
    >>> found = Comparison(Interval(1.3, 1.2, 1.4), SpeedVerdict.FASTER, *times, 9, 3, 0.0, ())
    >>> break_even_steps(found, spent_seconds=10.0)
    10000
    """
    if comparison is None or comparison.verdict is not SpeedVerdict.FASTER:
        return None
    saved = comparison.baseline.median_seconds - comparison.candidate.median_seconds
    return max(1, math.ceil(round(spent_seconds / saved, 6))) if saved > 0 else None


def total_seconds(trial: Trial, calls: int) -> float:
    """Seconds of loading a confirmed trial, its first call, and `calls` calls. Building is left out."""
    return opening_seconds(trial) + calls * _confirmed(trial).candidate.median_seconds


def original_total_seconds(trial: Trial, calls: int) -> float:
    """The same of the original that the trial was confirmed against."""
    baseline = _confirmed(trial).baseline
    return _once(baseline) + calls * baseline.median_seconds


def total_speedup(trial: Trial, calls: int) -> float:
    """The original's total seconds over the trial's."""
    return original_total_seconds(trial, calls) / total_seconds(trial, calls)


def expected_total_seconds(trial: Trial, calls: int, baseline_seconds: float) -> float:
    """Total seconds of a trial that was raced, at the speed-up that ranks it; `baseline_seconds` are those of one call
    of the original."""
    return trial.load_seconds + calls * baseline_seconds / (trial.rank_speedup or 1.0)


def opening_seconds(trial: Trial) -> float:
    """Seconds of loading and of the first call: the longest seen, since a program that compiles when it is loaded finds
    its compiler's cache the second time."""
    return max(trial.load_seconds, _once(_confirmed(trial).candidate))


def _once(times: ArmTimes) -> float:
    return times.load_seconds + times.first_call_seconds


def _confirmed(trial: Trial) -> Comparison:
    if trial.confirmed is None:
        raise ValueError(f"{trial.plan} was not confirmed, so its times are not known")
    return trial.confirmed
