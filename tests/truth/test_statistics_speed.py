"""The statistics of speed against known answers: scipy's, and simulations in which the truth is planted."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import special
from scipy import stats as oracle

from vivace.core.measurement import Interval, Quantile, SpeedVerdict
from vivace.core.workload import Mix
from vivace.measure import stats
from vivace.measure.claims.conclude import decide, exponential
from vivace.measure.claims.rules import StopRule


def heavy_tailed_blocks(generator: np.random.Generator, count: int, ratio: float = 1.0) -> np.ndarray:
    """Logs of block ratios as they were measured on a shared machine: 0.6% of spread and very heavy tails."""
    return math.log(ratio) + 0.006 * generator.standard_t(2.5, count)


def test_the_interval_is_the_exact_signed_rank_one() -> None:
    values = np.random.default_rng(0).normal(size=10)
    found = stats.hodges_lehmann(values)
    accepted = [
        shift for shift in np.linspace(-2, 2, 2001) if oracle.wilcoxon(values - shift, method="exact").pvalue > 0.05
    ]
    assert found.low == pytest.approx(min(accepted), abs=0.005)
    assert found.high == pytest.approx(max(accepted), abs=0.005)


def test_the_estimate_is_the_median_of_all_pairwise_means() -> None:
    values = [3.0, 1.0, 10.0, 2.0]
    means = [(a + b) / 2 for a, b in itertools.combinations_with_replacement(values, 2)]
    assert stats.hodges_lehmann(values).value == np.median(means)


@pytest.mark.parametrize("count", [10, 20, 60])
def test_the_interval_of_an_arm_against_itself_holds_the_truth_in_95_of_100(count: int) -> None:
    generator = np.random.default_rng(count)
    intervals = [stats.hodges_lehmann(heavy_tailed_blocks(generator, count)) for _ in range(3000)]
    covered = np.mean([interval.low <= 0 <= interval.high for interval in intervals])
    assert 0.93 <= covered <= 0.97


def test_stopping_on_width_keeps_the_coverage() -> None:
    generator = np.random.default_rng(1)
    intervals = [_stopped(generator) for _ in range(1500)]
    covered = np.mean([interval.low <= 0 <= interval.high for interval in intervals])
    assert 0.93 <= covered <= 0.975


def _stopped(generator: np.random.Generator) -> Interval:
    blocks: list[float] = []
    rule = StopRule(half_width=0.005)
    while not rule.is_met(blocks, 0.0):
        blocks.append(float(heavy_tailed_blocks(generator, 1)[0]))
    return stats.hodges_lehmann(blocks)


def test_an_arm_against_itself_is_called_same_or_undecided() -> None:
    generator = np.random.default_rng(2)
    verdicts = [decide(exponential(stats.hodges_lehmann(heavy_tailed_blocks(generator, 20)))) for _ in range(2000)]
    wrong = sum(verdict in (SpeedVerdict.FASTER, SpeedVerdict.SLOWER) for verdict in verdicts)
    assert wrong / len(verdicts) < 0.01


@pytest.mark.parametrize(("ratio", "verdict"), [(1.05, SpeedVerdict.FASTER), (1 / 1.05, SpeedVerdict.SLOWER)])
def test_a_planted_five_percent_is_found(ratio: float, verdict: SpeedVerdict) -> None:
    generator = np.random.default_rng(3)
    found = [decide(exponential(stats.hodges_lehmann(heavy_tailed_blocks(generator, 20, ratio)))) for _ in range(500)]
    assert found.count(verdict) / len(found) > 0.99


def test_a_planted_half_percent_is_not_claimed() -> None:
    generator = np.random.default_rng(4)
    found = [decide(exponential(stats.hodges_lehmann(heavy_tailed_blocks(generator, 30, 1.005)))) for _ in range(500)]
    assert SpeedVerdict.FASTER not in found


@pytest.mark.parametrize("between", [0.0, 0.002, 0.005, 0.02])
@pytest.mark.parametrize("blocks", [7, 20])
def test_the_interval_over_restarts_covers_whatever_the_restarts_own_effect(between: float, blocks: int) -> None:
    generator = np.random.default_rng(5)
    combined = [
        stats.combine([generator.normal(0, between) + heavy_tailed_blocks(generator, blocks) for _ in range(3)])
        for _ in range(1000)
    ]
    covered = np.mean([one.interval.low <= 0 <= one.interval.high for one in combined])
    assert covered >= 0.93


def test_restarts_that_clearly_differ_give_students_interval() -> None:
    restarts = [[center + step * 1e-4 for step in range(10)] for center in (0.0, 0.1, 0.2)]
    found = stats.combine(restarts)
    centers = [stats.hodges_lehmann(restart).value for restart in restarts]
    low, high = oracle.t.interval(0.95, 2, np.mean(centers), oracle.sem(centers))
    assert found.over_restarts
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high))


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 30, 200])
def test_students_quantile_is_scipys(freedom: int) -> None:
    assert stats.t_quantile(0.975, freedom) == pytest.approx(oracle.t.ppf(0.975, freedom), rel=1e-9)


def test_the_incomplete_beta_function_is_scipys() -> None:
    generator = np.random.default_rng(6)
    x, a, b = generator.random(500), 10 ** generator.uniform(-0.5, 3, 500), 10 ** generator.uniform(-0.5, 3, 500)
    found = [stats.beta_cdf(*each) for each in zip(x.tolist(), a.tolist(), b.tolist(), strict=True)]
    assert found == pytest.approx(special.betainc(a, b, x).tolist(), abs=1e-11)


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (10, 10), (250, 256), (1, 1000), (999, 1000)])
def test_clopper_pearson_is_scipys(hits: int, trials: int) -> None:
    exact = oracle.binomtest(hits, trials, alternative="greater").proportion_ci(0.95, "exact").low
    upper = oracle.binomtest(hits, trials, alternative="less").proportion_ci(0.95, "exact").high
    assert stats.clopper_pearson_low(hits, trials) == pytest.approx(exact, abs=1e-9)
    assert stats.clopper_pearson_high(hits, trials) == pytest.approx(upper, abs=1e-9)


@pytest.mark.parametrize(
    ("quantile", "confidence", "calls"),
    [(0.5, 0.99, 11), (0.9, 0.95, 46), (0.95, 0.95, 93), (0.99, 0.95, 473), (0.99, 0.99, 662), (0.999, 0.95, 4742)],
)
def test_a_tail_takes_as_many_calls_as_mlperf_says(quantile: float, confidence: float, calls: int) -> None:
    assert stats.tail_bound(range(calls - 1), quantile, confidence) is None
    assert stats.tail_bound(range(calls), quantile, confidence) == calls - 1


def test_a_tail_bound_is_above_the_true_quantile_in_95_of_100() -> None:
    generator = np.random.default_rng(7)
    truth = oracle.lognorm.ppf(0.99, 1.0)
    bounds = [stats.tail_bound(generator.lognormal(0, 1, 1000).tolist(), 0.99) for _ in range(2000)]
    assert np.mean([bound is not None and bound >= truth for bound in bounds]) >= 0.94


def test_steady_needs_two_windows_that_look_alike() -> None:
    assert not stats.is_steady([1.0] * 39, 20)
    assert stats.is_steady([1.0] * 40, 20)
    assert not stats.is_steady([1.2] * 20 + [1.0] * 20, 20)


def test_no_differences_are_refused() -> None:
    with pytest.raises(ValueError, match="received 0 differences"):
        stats.hodges_lehmann([])


def block_of(generator: np.random.Generator, by_shape: tuple[float, float], mix: Mix) -> list[float]:
    """Seconds of the calls of one block, with a machine's heavy tails, by what each shape truly takes."""
    typical = np.array([by_shape[shape] for shape in mix.shapes])
    return list(typical * np.exp(np.abs(0.01 * generator.standard_t(2.5, typical.size))))


def test_of_two_arms_the_one_whose_mix_is_faster_wins_although_its_median_call_is_slower() -> None:
    generator = np.random.default_rng(8)
    mix = Mix((0, 1, 0, 1, 0) * 24, (0.6, 0.4))
    baseline, candidate = (1.0, 10.0), (1.2, 4.0)

    blocks = [[block_of(generator, arm, mix) for arm in (baseline, candidate)] for _ in range(20)]
    by_median = [math.log(float(np.median(a)) / float(np.median(b))) for a, b in blocks]
    by_mix = [math.log(stats.call_seconds(a, mix) / stats.call_seconds(b, mix)) for a, b in blocks]

    truth = (0.6 * 1.0 + 0.4 * 10.0) / (0.6 * 1.2 + 0.4 * 4.0)
    assert decide(exponential(stats.hodges_lehmann(by_median))) is SpeedVerdict.SLOWER
    assert decide(exponential(stats.hodges_lehmann(by_mix))) is SpeedVerdict.FASTER
    assert exponential(stats.hodges_lehmann(by_mix)).value == pytest.approx(truth, rel=0.005)


def test_the_time_of_a_mix_keeps_its_weights_where_a_short_walk_cannot() -> None:
    walk = Mix((0,) * 11 + (1,), (0.99, 0.01))
    assert stats.call_seconds([1.0] * 11 + [100.0], walk) == pytest.approx(0.99 * 1.0 + 0.01 * 100.0)


def test_the_interval_of_a_mix_against_itself_holds_the_truth_in_95_of_100() -> None:
    generator = np.random.default_rng(9)
    mix = Mix((0, 1, 0, 0, 1, 0), (0.7, 0.3))

    def interval() -> Interval:
        blocks = [[block_of(generator, (1.0, 7.0), mix) for _ in range(2)] for _ in range(12)]
        return stats.hodges_lehmann(
            [math.log(stats.call_seconds(a, mix) / stats.call_seconds(b, mix)) for a, b in blocks]
        )

    covered = np.mean([found.low <= 0 <= found.high for found in (interval() for _ in range(1000))])
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_the_interval_of_a_quantile_holds_the_true_one_in_95_of_100(share: float) -> None:
    generator = np.random.default_rng(3)
    true = float(oracle.lognorm.ppf(share, 1.0))
    found = [stats.quantile(generator.lognormal(0, 1, 1000).tolist(), share) for _ in range(2000)]

    held = [q.low_seconds is not None and q.high_seconds is not None and q.low_seconds <= true <= q.high_seconds
            for q in found]  # fmt: skip
    assert 0.945 <= sum(held) / len(held) <= 0.985


def test_a_quantile_of_few_calls_has_no_upper_end() -> None:
    assert stats.quantile(list(map(float, range(100))), 0.99).high_seconds is None
    assert stats.quantile([1.0], 0.5) == Quantile(0.5, 1.0, None, None)


def test_the_spread_of_many_calls_keeps_the_shortest_and_the_longest() -> None:
    found = stats.spread([float(i) for i in range(10_000, 0, -1)])

    assert (len(found), found[0], found[-1]) == (stats.SPREAD_POINTS, 1.0, 10_000.0)
    assert list(found) == sorted(found)
