"""What blocks amount to: the interval of a ratio, a verdict, what was seen of both arms."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from vivace.core.measurement import ArmTimes, Comparison, Interval, SpeedVerdict
from vivace.core.workload import Mix
from vivace.measure import stats
from vivace.measure.claims.rules import StopRule
from vivace.measure.live import Reading

SMALLEST_CLAIM = 0.01
QUANTILES = (0.5, 0.9, 0.99)
SAME_WITHIN = 0.02
CROWDED_SHARE = 0.1
"""Of the time in which threads could run, what they may wait for a core: with less, most calls are not interrupted, so
that medians are of calls that were alone."""


def conclude(
    ratios: Sequence[tuple[float, ...]],
    readings: Sequence[tuple[Reading, Reading]],
    rule: StopRule,
    noise_floor: float,
    notes: Sequence[str] = (),
    means: Sequence[tuple[float, ...]] = (),
) -> Comparison:
    """The comparison that these blocks amount to: a tuple of ratios and the readings of both arms for each restart.

    `means` are the ratios of mean seconds in the same blocks. Where threads waited for cores that something else had,
    a call that is shorter than what the scheduler hands out mostly escapes that in its median, and a longer one does
    not: the interval then holds that of the means as well, and its value is the one nearer to 1.
    """
    combined = stats.combine([[math.log(ratio) for ratio in restart] for restart in ratios])
    speedup = exponential(combined.interval)
    crowd = crowding([one for both in readings for one in both])
    if crowd and means:
        speedup = cautious(speedup, exponential(stats.combine([[math.log(x) for x in one] for one in means]).interval))
    blocks = sum(map(len, ratios))
    enough = blocks >= rule.min_blocks
    baseline = summary([first for first, _ in readings])
    candidate = summary([second for _, second in readings])
    found = [
        *notes,
        crowd,
        "the interval is over restarts, which differ by more than blocks explain" if combined.over_restarts else "",
        "" if enough else f"only {blocks} blocks; a claim takes {rule.min_blocks}",
        "" if baseline.steady else "the baseline is UNSTEADY",
        "" if candidate.steady else "the candidate is UNSTEADY",
    ]
    return Comparison(
        speedup=speedup,
        verdict=decide(speedup, noise_floor) if enough else SpeedVerdict.UNDECIDED,
        baseline=baseline,
        candidate=candidate,
        blocks=blocks,
        restarts=len(ratios),
        noise_floor=noise_floor,
        ratios=tuple(ratios),
        note="; ".join(note for note in found if note),
    )


def crowding(readings: Sequence[Reading]) -> str:
    """That threads waited for cores while they were timed, as a phrase; empty where they hardly did."""
    share = max((reading.waited_share for reading in readings), default=0.0)
    if share <= CROWDED_SHARE:
        return ""
    return (
        f"threads that were ready waited {share:.0%} of their time for a core, which other processes had: the interval "
        "also holds the ratio of mean times"
    )


def cautious(medians: Interval, means: Interval) -> Interval:
    """An interval that holds both, with the value that claims less.

    >>> cautious(Interval(18.0, 8.0, 38.0), Interval(1.8, 1.5, 2.2))
    Interval(value=1.8, low=1.5, high=38.0)
    """
    value = min(medians.value, means.value, key=lambda ratio: abs(math.log(ratio)))
    return Interval(value, min(medians.low, means.low), max(medians.high, means.high))


def decide(speedup: Interval, noise_floor: float = 0.0) -> SpeedVerdict:
    """The verdict on a speed-up's interval (README, "How a number is earned").

    FASTER or SLOWER when the whole interval is beyond 1 by more than 1% and more than the noise floor; otherwise SAME
    when the whole interval is within 2% of 1; otherwise UNDECIDED.

    >>> decide(Interval(1.05, 1.03, 1.07), noise_floor=0.02).value
    'FASTER'
    >>> decide(Interval(1.05, 1.03, 1.07), noise_floor=0.04).value
    'UNDECIDED'
    """
    least = 1 + max(SMALLEST_CLAIM, noise_floor)
    if speedup.low > least:
        return SpeedVerdict.FASTER
    if speedup.high < 1 / least:
        return SpeedVerdict.SLOWER
    if speedup.low >= 1 - SAME_WITHIN and speedup.high <= 1 + SAME_WITHIN:
        return SpeedVerdict.SAME
    return SpeedVerdict.UNDECIDED


def noise_floor_of(same: Interval) -> float:
    """The smallest effect that may be claimed, from the speed-up of the baseline over itself.

    It is the farther end of the A/A interval from 1, as a share. Infinite when there were too few blocks.
    """
    farther = max(abs(math.log(same.low)) if same.low > 0 else math.inf, abs(math.log(same.high)))
    return math.expm1(farther)


def exponential(logs: Interval) -> Interval:
    """An interval of logs as one of ratios."""
    return Interval(math.exp(logs.value), math.exp(logs.low), math.exp(logs.high))


def summary(readings: Sequence[Reading]) -> ArmTimes:
    """Median and tail bounds of an arm's calls over its restarts, and the median of their first calls; the seconds of
    loading are of the first restart, in which programs open one by one."""
    seconds = [second for reading in readings for second in reading.seconds]
    mixes = [reading.mix for reading in readings if reading.mix is not None]
    mix = Mix(tuple(shape for one in mixes for shape in one.shapes), mixes[0].weights) if mixes else None
    return ArmTimes(
        median_seconds=stats.call_seconds(seconds, mix),
        p90_seconds=stats.tail_bound(seconds, 0.90),
        p99_seconds=stats.tail_bound(seconds, 0.99),
        calls=len(seconds),
        load_seconds=readings[0].load_seconds,
        first_call_seconds=statistics.median(reading.first_call_seconds for reading in readings),
        steady=all(reading.steady for reading in readings),
        peak_memory_bytes=max(reading.peak_bytes for reading in readings),
        shape_seconds=tuple(stats.shape_medians(seconds, mix).values()) if mix else (),
        quantiles=tuple(stats.quantile(seconds, share) for share in QUANTILES),
        spread_seconds=stats.spread(seconds),
    )
