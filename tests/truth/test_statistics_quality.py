"""The statistics of quality: how often the gate errs, by exact enumeration and by simulation; scipy as the oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as oracle

from vivace.core.quality import QualityVerdict
from vivace.measure import gate

CELLS = [
    (samples, margin, flips)
    for samples in (50, 100, 200, 300)
    for margin in (0.005, 0.01, 0.02, 0.05)
    for flips in (margin, 1.5 * margin, 4 * margin, 0.1)
    if flips >= margin
]


def errors(samples: int, margin: float, flips: float) -> tuple[float, float]:
    """How often the gate says HELD, and NOT HELD, when the true drop is exactly the margin: exact sums."""
    harm, help_ = (flips + margin) / 2, (flips - margin) / 2
    held = refused = 0.0
    for harmed in range(int(oracle.binom.ppf(1 - 1e-7, samples, harm)) + 1):
        share = help_ / (1 - harm)
        for helped in range(int(oracle.binom.ppf(1 - 1e-7, samples - harmed, share)) + 1):
            weight = oracle.binom.pmf(harmed, samples, harm) * oracle.binom.pmf(helped, samples - harmed, share)
            if weight > 1e-7:
                low, high = gate.drop_bounds(harmed, helped, samples)
                held += weight * (high < margin)
                refused += weight * (low > margin)
    return held, refused


@pytest.mark.slow
def test_a_drop_of_exactly_the_budget_is_held_in_at_most_five_and_a_half_of_100() -> None:
    found = {cell: errors(*cell) for cell in CELLS}
    assert max(held for held, _ in found.values()) <= 0.055
    assert max(refused for _, refused in found.values()) <= 0.065


@pytest.mark.parametrize(("samples", "margin", "flips"), [(300, 0.01, 0.01), (100, 0.02, 0.1), (200, 0.005, 0.02)])
def test_the_gates_error_is_at_most_its_nominal_one(samples: int, margin: float, flips: float) -> None:
    held, _ = errors(samples, margin, flips)
    assert held <= 0.055


@pytest.mark.parametrize(
    ("harmed", "helped", "samples", "margin"), [(7, 3, 500, 0.01), (0, 0, 300, 0.01), (3, 9, 80, 0.05)]
)
def test_tangos_statistic_maximizes_the_restricted_likelihood(
    harmed: int, helped: int, samples: int, margin: float
) -> None:
    grid = np.linspace(1e-9, (1 - margin) / 2 - 1e-9, 400_001)
    same = samples - harmed - helped
    log_likelihood = (
        harmed * np.log(grid + margin)
        + helped * np.log(grid)
        + same * np.log(np.maximum(1 - 2 * grid - margin, 1e-300))
    )
    q = grid[int(np.argmax(log_likelihood))]
    z = (harmed - helped - samples * margin) / math.sqrt(samples * (2 * q + margin * (1 - margin)))
    assert gate.tango_z(harmed, helped, samples, margin) == pytest.approx(z, abs=1e-3)


@pytest.mark.parametrize(("harmed", "helped"), [(3, 1), (10, 4), (1, 12)])
def test_the_upper_bound_is_where_tangos_test_turns(harmed: int, helped: int) -> None:
    low, high = gate.drop_bounds(harmed, helped, 400)
    assert gate.tango_z(harmed, helped, 400, high) == pytest.approx(-1.6449, abs=1e-3)
    assert gate.tango_z(harmed, helped, 400, low) == pytest.approx(1.6449, abs=1e-3)


def test_without_a_flip_the_bound_is_the_exact_one() -> None:
    assert gate.drop_bounds(0, 0, 299)[1] == pytest.approx(1 - 0.05 ** (1 / 299))


def test_a_drop_just_over_the_budget_is_seldom_held() -> None:
    generator = np.random.default_rng(0)
    verdicts = []
    for _ in range(300):
        draw = generator.random(1000)
        baseline, candidate = np.ones(1000), np.ones(1000)
        baseline[draw < 0.01], candidate[(draw >= 0.01) & (draw < 0.032)] = 0, 0  # a true drop of 1.2 points
        verdicts.append(gate.judge_scores(baseline, candidate, 0.01).verdict)
    assert verdicts.count(QualityVerdict.HELD) / len(verdicts) <= 0.055


def test_a_harmless_candidate_is_held_with_the_power_that_was_promised() -> None:
    generator = np.random.default_rng(1)
    samples = math.ceil(6.18 * 0.02 / 0.01**2)
    verdicts = []
    for _ in range(300):
        draw = generator.random(samples)
        baseline, candidate = np.ones(samples), np.ones(samples)
        baseline[draw < 0.01], candidate[(draw >= 0.01) & (draw < 0.02)] = 0, 0
        verdicts.append(gate.judge_scores(baseline, candidate, 0.01).verdict)
    assert verdicts.count(QualityVerdict.HELD) / len(verdicts) == pytest.approx(0.80, abs=0.07)


def test_the_bootstraps_bound_is_close_to_scipys() -> None:
    differences = np.random.default_rng(2).exponential(size=120)
    theirs = oracle.bootstrap(
        (differences,), np.mean, confidence_level=0.9, n_resamples=20_000, method="BCa", rng=np.random.default_rng(3)
    ).confidence_interval
    low, high = gate.bootstrap_bounds(differences, resamples=20_000)
    assert (low, high) == pytest.approx((theirs.low, theirs.high), rel=0.01)


def test_the_bootstrap_errs_in_about_five_of_100_on_skewed_differences() -> None:
    generator = np.random.default_rng(4)
    uppers = [gate.bootstrap_bounds(generator.exponential(size=100), resamples=1000)[1] for _ in range(1000)]
    assert np.mean(np.array(uppers) < 1.0) <= 0.075


def test_groups_widen_the_bound_when_their_samples_go_together() -> None:
    generator = np.random.default_rng(5)
    groups = np.repeat(np.arange(60), 10)
    drop = np.repeat(generator.normal(0, 0.1, 60), 10)
    alone = gate.judge_scores(np.zeros(600), -drop, 0.05)
    grouped = gate.judge_scores(np.zeros(600), -drop, 0.05, groups=groups.tolist())
    assert alone.drop_upper is not None
    assert grouped.drop_upper is not None
    assert grouped.drop_upper - drop.mean() > 2.5 * (alone.drop_upper - drop.mean())
