"""The statistics of speed: Hodges-Lehmann with its interval, restarts, tail bounds, exact proportions. Pure."""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vivace.core.measurement import Interval, Quantile
from vivace.core.quality import QualityVerdict
from vivace.core.workload import Mix

Floats = Sequence[float] | np.ndarray[Any, np.dtype[np.float64]]

Z95 = 1.959963984540054
CONFIDENCE = 0.95
SPREAD_POINTS = 201
TOST_ERROR = 0.05
"""Of each of the two one-sided tests of equivalence (Schuirmann 1987): the interval has 90%."""
FEWEST_FOR_INTERVAL = 6
"""With fewer differences no two-sided 95% signed-rank interval exists: 2 / 2**5 > 0.05."""


def hodges_lehmann(differences: Floats) -> Interval:
    """The median of the pairwise means of paired differences, with its 95% interval by the Wilcoxon signed-rank test.

    The interval runs between the c-th smallest and c-th largest of the n(n+1)/2 Walsh averages; c is exact up to 50
    differences and from the normal approximation above. Under 6 differences the interval is everything:
    (-inf, inf). Source: Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 3rd ed., 3.2-3.3.

    Raises ValueError when there is no difference, or one is not finite.

    >>> hodges_lehmann([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    Interval(value=3.5, low=1.0, high=6.0)
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"received {values.size} differences; allowed are one or more finite numbers")
    walsh = walsh_averages(values)
    value = float(np.median(walsh))
    if values.size < FEWEST_FOR_INTERVAL:
        return Interval(value, -math.inf, math.inf)
    count = signed_rank_index(values.size)
    return Interval(value, float(walsh[count - 1]), float(walsh[walsh.size - count]))


def walsh_averages(values: np.ndarray) -> np.ndarray:
    """The means of all pairs, each value with itself too, sorted."""
    first, second = np.triu_indices(values.size)
    return np.sort((values[first] + values[second]) / 2)


@functools.cache
def signed_rank_index(count: int) -> int:
    """Which Walsh average, counted from the smallest, bounds the 95% interval of this many differences.

    >>> signed_rank_index(10)
    9
    """
    if count > 50:
        mean, deviation = count * (count + 1) / 4, math.sqrt(count * (count + 1) * (2 * count + 1) / 24)
        return max(1, math.floor(mean - Z95 * deviation))
    ways = np.zeros(count * (count + 1) // 2 + 1)
    ways[0] = 1.0
    for rank in range(1, count + 1):
        ways[rank:] += ways[:-rank].copy()
    below = np.cumsum(ways / 2.0**count)
    return int(np.searchsorted(below, (1 - CONFIDENCE) / 2, side="right"))


@dataclasses.dataclass(frozen=True)
class Combined:
    """An estimate on the log scale; `over_restarts` says that restarts differed more than blocks explain."""

    interval: Interval
    over_restarts: bool


HETEROGENEITY = 0.25
"""Restarts count as different when their variance is over this share of what blocks explain by themselves.

It is low on purpose: a test of three numbers sees little, and an interval that ignores the restarts' own effect then
covers 85% instead of 95%. With this share it covers 95% or more whatever that effect is (simulated in
tests/truth/test_statistics_speed.py), at the price of intervals half as wide again where restarts do agree."""


def combine(restarts: Sequence[Floats]) -> Combined:
    """The estimate over several restarts of block differences (logs of ratios).

    One restart, or restarts that agree: Hodges-Lehmann over all blocks. Restarts that differ by more than the
    intervals within them explain: a Student interval over the restarts' estimates, for then the restart is the unit of
    replication (Kalibera and Jones, Rigorous benchmarking in reasonable time, ISMM 2013).

    Raises ValueError when a restart has no block.
    """
    pooled = hodges_lehmann([value for restart in restarts for value in restart])
    if len(restarts) < 2:
        return Combined(pooled, False)
    each = [hodges_lehmann(restart) for restart in restarts]
    centers = np.array([one.value for one in each])
    within = float(np.mean([((one.high - one.low) / (2 * Z95)) ** 2 for one in each]))
    between = float(np.var(centers, ddof=1))
    if math.isfinite(within) and between <= HETEROGENEITY * within:
        return Combined(pooled, False)
    mean = float(np.mean(centers))
    half = t_quantile(0.975, len(restarts) - 1) * math.sqrt(between / len(restarts))
    low, high = min(mean - half, pooled.low), max(mean + half, pooled.high)
    return Combined(Interval(mean, low, high), True)


def tail_bound(seconds: Sequence[float], quantile: float, confidence: float = CONFIDENCE) -> float | None:
    """An upper bound of a quantile of call times, from order statistics; None when there are too few calls.

    With t the largest number of calls that may lie above the quantile's bound, P(Binomial(n, 1-quantile) <= t) <=
    1-confidence, it is the t-th longest time. t must be 1 or more: a p99 takes 473 calls, a p90 takes 46.
    Source: MLPerf Inference rules, early stopping.

    >>> tail_bound(range(472), 0.99), tail_bound(range(473), 0.99)
    (None, 472.0)
    """
    allowed = _largest_excess(len(seconds), 1 - quantile, 1 - confidence)
    return float(np.sort(np.asarray(seconds))[-allowed]) if allowed else None


def quantile(seconds: Sequence[float], share: float, confidence: float = CONFIDENCE) -> Quantile:
    """A quantile with its two-sided interval by order statistics, which holds for any distribution.

    The quantile is the ceil(n share)-th shortest time. The interval runs from the l-th to the u-th shortest, with l the
    largest and u the smallest for which P(Binomial(n, share) < l) and P(Binomial(n, share) >= u) are each at most
    (1-confidence)/2; an end is None where there is no such time. Source: David and Nagaraja, Order Statistics, 3rd ed.,
    7.1.

    >>> quantile([float(i) for i in range(1, 11)], 0.5)
    Quantile(share=0.5, seconds=5.0, low_seconds=2.0, high_seconds=9.0)
    """
    times = np.sort(np.asarray(seconds, dtype=np.float64))
    count, error = times.size, (1 - confidence) / 2
    below = _largest_excess(count, share, error, lowest=-1) + 1
    above = count - _largest_excess(count, 1 - share, error, lowest=-1)
    return Quantile(
        share,
        float(times[max(0, math.ceil(count * share - 1e-9) - 1)]),
        float(times[below - 1]) if below >= 1 else None,
        float(times[above - 1]) if above <= count else None,
    )


def spread(seconds: Sequence[float], points: int = SPREAD_POINTS) -> tuple[float, ...]:
    """The times at evenly spaced shares from the shortest to the longest, or all of them where there are fewer.

    >>> spread([3.0, 1.0, 2.0])
    (1.0, 2.0, 3.0)
    """
    times = np.sort(np.asarray(seconds, dtype=np.float64))
    if times.size > points:
        times = times[np.linspace(0, times.size - 1, points).round().astype(int)]
    return tuple(times.tolist())


def _largest_excess(calls: int, share: float, error: float, lowest: int = 0) -> int:
    """The largest t with P(Binomial(calls, share) <= t) <= error; `lowest` when there is none above it."""
    total, allowed = 0.0, -1
    while allowed < calls:
        total += math.exp(_log_binomial(calls, allowed + 1, share))
        if total > error:
            break
        allowed += 1
    return max(allowed, lowest)


def _log_binomial(trials: int, hits: int, share: float) -> float:
    ways = math.lgamma(trials + 1) - math.lgamma(hits + 1) - math.lgamma(trials - hits + 1)
    return ways + hits * math.log(share) + (trials - hits) * math.log1p(-share)


def clopper_pearson_low(hits: int, trials: int, error: float = 0.05) -> float:
    """The one-sided lower bound of a proportion: the share at which this many hits or more has probability `error`.

    Raises ValueError unless 0 <= hits <= trials and trials > 0. Source: Clopper and Pearson, Biometrika 26, 1934.

    >>> round(clopper_pearson_low(256, 256), 4)
    0.9884
    """
    if not 0 <= hits <= trials or trials == 0:
        raise ValueError(f"received {hits} hits of {trials} trials; allowed are 0 <= hits <= trials, trials > 0")
    if hits == 0:
        return 0.0
    return bisect(lambda share: beta_cdf(share, hits, trials - hits + 1) - error, 0.0, 1.0)


def clopper_pearson_high(hits: int, trials: int, error: float = 0.05) -> float:
    """The one-sided upper bound of a proportion.

    >>> round(clopper_pearson_high(0, 299), 4)
    0.01
    """
    return 1.0 - clopper_pearson_low(trials - hits, trials, error)


def t_quantile(probability: float, freedom: int) -> float:
    """The quantile of Student's distribution, for a probability of one half or more.

    >>> round(t_quantile(0.975, 2), 3)
    4.303
    """
    if not 0.5 <= probability < 1 or freedom < 1:
        raise ValueError(f"received probability={probability}, freedom={freedom}; allowed are [0.5, 1) and 1 or more")
    share = bisect(lambda x: beta_cdf(x, freedom / 2, 0.5) - 2 * (1 - probability), 0.0, 1.0)
    return math.sqrt(freedom * (1 - share) / share)


def normal_quantile(probability: float) -> float:
    """The quantile of the normal distribution.

    >>> round(normal_quantile(0.95), 3)
    1.645
    """
    return statistics.NormalDist().inv_cdf(probability)


def beta_cdf(x: float, a: float, b: float) -> float:
    """The regularized incomplete beta function I_x(a, b), by its continued fraction (Lentz's method).

    Source: NIST Digital Library of Mathematical Functions, 8.17.22.
    """
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - beta_cdf(1 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) / a * _beta_fraction(x, a, b)


def _beta_fraction(x: float, a: float, b: float) -> float:
    tiny, total, c, d = 1e-300, 1.0, 1.0, 0.0
    for step in range(2000):
        m = step // 2
        if step == 0:
            term = 1.0
        elif step % 2 == 0:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / (1 + term * d or tiny)
        c = 1 + term / c or tiny
        total *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return total - 1


def bisect(function: Callable[[float], float], low: float, high: float) -> float:
    """Where an increasing function crosses zero between two bounds, to the last bits."""
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if function(middle) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def call_seconds(
    seconds: Sequence[float], mix: Mix | None = None, average: Callable[[Sequence[float]], float] = statistics.median
) -> float:
    """The seconds of a call: the median; of calls in several shapes, the mean of the shapes' medians by their weights.

    sum_s w_s median_s / sum_s w_s, over the shapes that occur

    The median over a mix would be that of its most frequent shape, whatever the others take. With the weights as they
    were given, not as a walk of a few calls rounds them, every shape counts for its share of all calls.

    >>> call_seconds([1.0, 1.0, 10.0], Mix((0, 0, 1), (0.7, 0.3)))
    3.7
    """
    if mix is None:
        return average(seconds)
    medians = shape_medians(seconds, mix, average)
    total = sum(mix.weights[shape] for shape in medians)
    if not total:
        return average(seconds)
    return sum(mix.weights[shape] * median for shape, median in medians.items()) / total


def shape_medians(
    seconds: Sequence[float], mix: Mix, average: Callable[[Sequence[float]], float] = statistics.median
) -> dict[int, float]:
    """The median seconds, or another average, of each shape that occurs, in the order of the shapes."""
    return {
        shape: average([second for second, own in zip(seconds, mix.shapes, strict=True) if own == shape])
        for shape in sorted(set(mix.shapes))
    }


def is_steady(seconds: Sequence[float], window: int) -> bool:
    """Whether the last two windows of calls look alike: medians within 5%, quartiles within 10%.

    After pyperf's warm-up test (`_manager.py`, calibrate_warmups), with medians in place of means.

    >>> is_steady([9.0, 5.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], 3)
    True
    """
    if len(seconds) < 2 * window:
        return False
    earlier = np.quantile(seconds[-2 * window : -window], [0.25, 0.5, 0.75])
    later = np.quantile(seconds[-window:], [0.25, 0.5, 0.75])
    change = np.abs(later - earlier) / np.maximum(earlier, 1e-12)
    return bool(change[1] <= 0.05 and change[0] <= 0.10 and change[2] <= 0.10)


def mean_interval(differences: Sequence[float], error: float = TOST_ERROR) -> Interval:
    """The mean of paired differences with its interval by Student's t, of confidence 1 - 2 x `error`.

    One difference alone, or none that varies, leaves the interval open or gives it no width.

    >>> mean_interval([0.1, 0.2, 0.3]).value
    0.2
    """
    mean = statistics.fmean(differences)
    if len(differences) < 2:
        return Interval(mean, -math.inf, math.inf)
    half = t_quantile(1 - error, len(differences) - 1) * statistics.stdev(differences) / math.sqrt(len(differences))
    return Interval(mean, mean - half, mean + half)


def equivalence(difference: Interval, margin: float) -> QualityVerdict:
    """HELD where the whole interval is within the margin, NOT HELD where it is wholly outside, else CANNOT TELL.

    >>> equivalence(Interval(0.0, -0.1, 0.1), margin=0.2).value
    'HELD'
    >>> equivalence(Interval(0.0, -0.3, 0.1), margin=0.2).value
    'CANNOT TELL'
    """
    if -margin <= difference.low and difference.high <= margin:
        return QualityVerdict.HELD
    if difference.low > margin or difference.high < -margin:
        return QualityVerdict.NOT_HELD
    return QualityVerdict.CANNOT_TELL
