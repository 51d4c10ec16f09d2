"""The statistics of equivalence: Student's interval, and a test that says HELD wrongly in 5% of cases at most."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from vivace.core.quality import QualityVerdict
from vivace.measure.stats import equivalence, mean_interval


def test_the_interval_of_a_mean_is_students() -> None:
    differences = [0.3, -0.1, 0.2, 0.05, 0.4]
    found = mean_interval(differences)
    wanted = scipy.stats.ttest_1samp(differences, 0.0).confidence_interval(0.90)

    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


def test_a_difference_as_large_as_the_margin_is_called_equivalent_in_five_of_a_hundred() -> None:
    chance = np.random.default_rng(3)
    held = [
        equivalence(mean_interval(list(chance.normal(1.0, 0.3, 5))), margin=1.0) is QualityVerdict.HELD
        for _ in range(2000)
    ]

    assert np.mean(held) < 0.07


def test_equal_means_are_called_equivalent_where_there_are_enough_seeds() -> None:
    chance = np.random.default_rng(4)
    verdicts = [equivalence(mean_interval(list(chance.normal(0.0, 0.3, 8))), margin=1.0) for _ in range(500)]

    assert np.mean([verdict is QualityVerdict.HELD for verdict in verdicts]) > 0.95
    assert QualityVerdict.NOT_HELD not in verdicts


def test_one_seed_tells_nothing() -> None:
    assert equivalence(mean_interval([0.0]), margin=1.0) is QualityVerdict.CANNOT_TELL
