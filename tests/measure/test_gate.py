"""The gate's answers and what it says to a metric that is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vivace.core.errors import UsageError
from vivace.core.quality import Gate, QualityVerdict
from vivace.measure.gate import check_scores, judge_scores
from vivace.search.judge import verdicts_affordable


def zero_one(samples: int, wrong: int) -> list[int]:
    return [0] * wrong + [1] * (samples - wrong)


def test_no_flip_in_many_samples_is_held() -> None:
    found = judge_scores(zero_one(400, 20), zero_one(400, 20), 0.01)
    assert found.verdict is QualityVerdict.HELD
    assert (found.baseline, found.drop, found.samples_needed) == (0.95, 0.0, None)


def test_no_flip_in_few_samples_cannot_tell() -> None:
    found = judge_scores(zero_one(250, 0), zero_one(250, 0), 0.01)
    assert found.verdict is QualityVerdict.CANNOT_TELL
    assert found.samples_needed is not None
    assert found.samples_needed >= 299


@pytest.mark.parametrize(("samples", "verdicts"), [(443, 3), (420, 3), (375, 2), (500, 5), (535, 5)])
def test_no_flip_is_held_by_as_many_verdicts_as_can_be_afforded(samples: int, verdicts: int) -> None:
    affordable = verdicts_affordable(0.01, samples, 0.05, verdicts)
    found = judge_scores([1] * samples, [1] * samples, 0.01, alpha=0.05 / affordable)
    assert (affordable > 1, found.verdict) == (True, QualityVerdict.HELD)
    assert verdicts_affordable(0.01, samples, 0.05, 99) == affordable or affordable == verdicts


def test_as_many_samples_like_these_as_are_asked_for_decide() -> None:
    few = judge_scores(zero_one(600, 0) + [0] * 6, zero_one(600, 6) + [1] * 3 + [0] * 3, 0.01)
    assert few.verdict is QualityVerdict.CANNOT_TELL
    assert few.samples_needed is not None
    times = -(-few.samples_needed // 606)
    more = judge_scores(
        zero_one(600 * times, 0) + [0] * 6 * times,
        zero_one(600 * times, 6 * times) + [1] * 3 * times + [0] * 3 * times,
        0.01,
    )
    assert more.verdict is QualityVerdict.HELD
    assert "samples like these would decide" in few.reason


def test_a_drop_at_the_budget_that_no_number_of_samples_tells_from_it_names_none() -> None:
    found = judge_scores(zero_one(1000, 0), [0] * 9 + [1] * 991, 0.0107)
    near = judge_scores(zero_one(1000, 0), [0] * 9 + [1] * 991, (found.drop_upper or 0) * 0.65)
    wanted = [found, near]

    assert all(one.verdict is QualityVerdict.CANNOT_TELL for one in wanted)
    for one in wanted:
        assert (one.samples_needed is None) == ("too near for any number of samples" in one.reason)
        assert one.samples_needed is None or one.samples_needed <= 100 * 1000


def test_a_large_drop_is_not_held_and_the_reason_gives_both_numbers() -> None:
    found = judge_scores(zero_one(500, 0), zero_one(500, 50), 0.01)
    assert found.verdict is QualityVerdict.NOT_HELD
    assert "the budget is 0.01" in found.reason


def test_a_drop_at_the_budget_cannot_tell_and_asks_for_more() -> None:
    found = judge_scores(zero_one(500, 0), zero_one(500, 5), 0.01)
    assert found.verdict is QualityVerdict.CANNOT_TELL
    assert found.samples_needed is not None
    assert found.samples_needed > 500


def test_the_verdict_agrees_with_the_bound() -> None:
    held = judge_scores(zero_one(2000, 0), zero_one(2000, 8), 0.01)
    assert held.verdict is QualityVerdict.HELD
    assert held.drop_upper is not None
    assert held.drop_upper < 0.01


def test_a_smaller_alpha_is_stricter() -> None:
    assert judge_scores([1] * 320, [1] * 320, 0.01).verdict is QualityVerdict.HELD
    assert judge_scores([1] * 320, [1] * 320, 0.01, alpha=0.01).verdict is QualityVerdict.CANNOT_TELL


def test_a_budget_of_nothing_cannot_be_certified_by_equal_scores() -> None:
    found = judge_scores([1] * 5000, [1] * 5000, 0.0)
    assert found.verdict is QualityVerdict.CANNOT_TELL
    assert found.samples_needed is None
    assert "give a budget above 0" in found.reason


def test_a_budget_of_nothing_is_held_by_a_candidate_that_is_better() -> None:
    assert judge_scores(zero_one(500, 50), zero_one(500, 0), 0.0).verdict is QualityVerdict.HELD


def test_the_point_gate_compares_means_and_says_so() -> None:
    found = judge_scores(zero_one(50, 0), zero_one(50, 0), 0.01, gate=Gate.POINT)
    assert found.verdict is QualityVerdict.HELD
    assert "point estimate" in found.basis
    assert found.drop_upper is None


def test_scores_that_are_not_zero_or_one_are_bootstrapped() -> None:
    generator = np.random.default_rng(0)
    baseline = generator.normal(size=400)
    found = judge_scores(baseline, baseline + generator.normal(0, 0.01, 400), 0.05)
    assert found.verdict is QualityVerdict.HELD
    assert "bootstrap" in found.basis


def test_few_samples_of_such_scores_cannot_tell() -> None:
    found = judge_scores(np.linspace(0, 1, 20), np.linspace(0, 1, 20) - 0.5, 0.01)
    assert found.verdict is QualityVerdict.CANNOT_TELL
    assert found.drop_upper is None


def test_equal_scores_of_such_a_metric_are_not_held_by_a_width_of_nothing() -> None:
    scores = np.linspace(0, 1, 40)
    assert judge_scores(scores, scores, 0.01).verdict is QualityVerdict.CANNOT_TELL


def test_the_same_scores_give_the_same_verdict_each_time() -> None:
    baseline = np.random.default_rng(1).normal(size=100)
    assert judge_scores(baseline, baseline * 0.99, 0.1) == judge_scores(baseline, baseline * 0.99, 0.1)


@pytest.mark.parametrize("margin", [-0.1, float("nan"), float("inf")])
def test_a_margin_that_is_no_margin_is_refused(margin: float) -> None:
    with pytest.raises(UsageError, match="allowed is a finite number of 0 or more"):
        judge_scores([1], [1], margin)


def test_groups_of_another_number_are_refused() -> None:
    with pytest.raises(UsageError, match="received 2 groups for 3 samples"):
        judge_scores([1, 0, 1], [1, 0, 1], 0.1, groups=["a", "b"])


def test_no_scores_are_refused() -> None:
    with pytest.raises(UsageError, match="no score to judge by"):
        judge_scores([], [], 0.1)


@pytest.mark.parametrize(
    "scores",
    [[1, 0, 1], [True, False, True], np.array([1.0, 0.0, 1.0]), torch.tensor([[1], [0], [1]]), torch.tensor([1, 0, 1])],
)
def test_scores_may_come_in_many_forms(scores: Any) -> None:
    assert check_scores(scores, 3).tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1, 0, 1], "metric returned 3 scores for 32 samples; allowed is one score per sample"),
        (0.97, "metric returned 1 scores for 32 samples"),
        (torch.zeros(2, 16), "a tensor of shape \\[2, 16\\] for 32 samples"),
        ([float("nan")] + [1.0] * 31, "1 scores that are NaN or infinite, the first for sample 0"),
        ("good", "a str that is not numbers"),
        (None, "a NoneType that is not numbers"),
    ],
)
def test_a_metric_that_is_wrong_is_told_what_is_allowed(scores: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_scores(scores, 32)
