"""Shot-noise intervals hold the true value as often as they say: exactly for one share, by many seeds for circuits."""

from __future__ import annotations

import numpy as np
import pytest

from vivace.quantum.intervals import expectation, holds, proportion, total
from vivace.quantum.layers.overlap import OverlapTest, overlap

scipy_stats = pytest.importorskip("scipy.stats", reason="scipy comes with the extras quantum and dev")


@pytest.mark.parametrize("confidence", [0.95, 0.99])
@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.8371, 0.999])
def test_the_coverage_of_a_share_is_at_least_what_it_says_at_every_share(confidence: float, share: float) -> None:
    shots = 300
    chances = scipy_stats.binom.pmf(np.arange(shots + 1), shots, share)

    held = [holds(proportion(count, shots, confidence), share) for count in range(shots + 1)]

    coverage = float(chances @ np.array(held))
    assert confidence <= coverage <= 1 - 0.2 * (1 - confidence) or share in (0.01, 0.999)
    assert coverage >= confidence


def test_the_limits_are_those_of_the_exact_binomial_test() -> None:
    reference = scipy_stats.binomtest(37, 200).proportion_ci(0.95, method="exact")

    found = proportion(37, 200)

    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), rel=1e-9)


def test_a_sum_of_four_correlations_holds_the_true_sum_in_95_of_100_runs() -> None:
    dice, truth, runs = np.random.default_rng(0), [0.7, 0.7, 0.7, -0.7], 2000
    draws = dice.binomial(500, [(1 + one) / 2 for one in truth], size=(runs, 4))

    held = sum(holds(total([expectation(int(c), 500) for c in counts]), sum(truth)) for counts in draws)

    assert 0.945 <= held / runs <= 0.975


@pytest.mark.parametrize("test", list(OverlapTest))
def test_circuits_over_many_seeds_give_intervals_that_hold_the_classical_value(test: OverlapTest) -> None:
    pytest.importorskip("qiskit_aer", reason="circuits need qiskit-aer: pip install 'vivace[quantum]'")
    from vivace.quantum.layers.overlap import ZERO, circuit_of
    from vivace.quantum.simulator import sampled, translated

    one, other = np.random.default_rng(7).standard_normal((2, 16))
    one, other = one / np.linalg.norm(one), other / np.linalg.norm(other)
    truth, runs, shots = float(one @ other), 400, 500
    truth = truth if test is OverlapTest.HADAMARD else abs(truth)
    circuit = translated(circuit_of(test, one, other), None)

    counts = sampled([circuit] * runs, shots, seed=11)

    zeros = [found.get(ZERO, 0) for found in counts]
    held = sum(holds(overlap(test, count, shots), truth) for count in zeros)
    assert len(set(zeros)) > 10
    assert held >= scipy_stats.binom.ppf(0.0005, runs, 0.95)
