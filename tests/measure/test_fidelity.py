"""Fidelity: known distances, what is refused outright, and the float64 referee."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vivace.core.errors import WorkerFailure
from vivace.core.measurement import Outcome
from vivace.core.quality import Fidelity, Flip, QualityVerdict
from vivace.measure.fidelity import compare_outputs, decisions_of, judge_fidelity, referee


def outputs(calls: int = 8, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(16, 10, generator=generator, dtype=torch.float64).to(dtype)] for _ in range(calls)]


def changed(reference: list[list[Tensor]], noise: float) -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(9)
    return [[t + noise * torch.randn(t.shape, generator=generator).to(t.dtype) for t in call] for call in reference]


def test_equal_outputs_are_infinitely_close() -> None:
    found = compare_outputs(outputs(), outputs())
    assert (found.sqnr_db, found.agreement, found.samples) == (math.inf, 1.0, 128)
    assert found.cosine == pytest.approx(1.0)


@pytest.mark.parametrize(("noise", "decibels"), [(0.1, 20.0), (0.01, 40.0)])
def test_sqnr_and_cosine_are_what_the_noise_says(noise: float, decibels: float) -> None:
    found = compare_outputs(outputs(40), changed(outputs(40), noise))
    assert found.sqnr_db == pytest.approx(decibels, abs=0.3)
    assert found.cosine == pytest.approx(1 / math.sqrt(1 + noise**2), rel=1e-3)


def test_the_worst_sample_is_found() -> None:
    candidate = outputs()
    candidate[3][0][5] *= 2
    found = compare_outputs(outputs(), candidate)
    assert found.worst_sample_sqnr_db == pytest.approx(0.0, abs=1e-4)
    assert found.sqnr_db > 15


def test_agreement_counts_decisions_and_bounds_them() -> None:
    candidate = outputs()
    candidate[0][0][0] = -candidate[0][0][0]
    found = compare_outputs(outputs(), candidate)
    assert found.agreement == pytest.approx(127 / 128)
    assert found.agreement_low == pytest.approx(0.9635, abs=1e-3)


def test_a_tie_may_go_either_way() -> None:
    reference, candidate = [[torch.tensor([[1.0, 1.00001, 0.0]])]], [[torch.tensor([[1.00001, 1.0, 0.0]])]]
    assert compare_outputs(reference, candidate).agreement == 1.0


def test_a_tie_does_not_excuse_a_third_class() -> None:
    reference, candidate = [[torch.tensor([[1.0, 1.00001, 0.0]])]], [[torch.tensor([[1.0, 1.0, 3.0]])]]
    assert compare_outputs(reference, candidate).agreement == 0.0


def test_the_batch_axis_need_not_be_the_first() -> None:
    reference = [[torch.randn(10, 16)]]
    assert compare_outputs(reference, reference, [1]).samples == 16
    assert compare_outputs(reference, reference, [None]).agreement is None


def test_images_decide_nothing() -> None:
    reference = [[torch.randn(2, 3, 8, 8)]]
    assert compare_outputs(reference, reference).agreement is None


@pytest.mark.parametrize(
    ("candidate", "outcome", "message"),
    [
        ([torch.zeros(2, 3), torch.zeros(1)], Outcome.WRONG_OUTPUT, "2 output tensors; the original has 1"),
        ([torch.zeros(2, 4)], Outcome.WRONG_OUTPUT, r"shape \[2, 4\]; the original's is \[2, 3\]"),
        ([torch.zeros(2, 3).half()], Outcome.WRONG_OUTPUT, "dtype torch.float16"),
        ([torch.full((2, 3), math.nan)], Outcome.NONFINITE, "NaN or infinity"),
        ([torch.full((2, 3), math.inf)], Outcome.NONFINITE, "NaN or infinity"),
    ],
)
def test_outputs_that_cannot_be_right_are_refused(candidate: list[Tensor], outcome: Outcome, message: str) -> None:
    with pytest.raises(WorkerFailure, match=message) as caught:
        compare_outputs([[torch.zeros(2, 3)]], [candidate])
    assert caught.value.outcome is outcome


def test_infinities_of_the_original_are_allowed_to_stay() -> None:
    masked = [[torch.tensor([[1.0, -math.inf]])]]
    assert compare_outputs(masked, masked).sqnr_db == math.inf


def test_a_missing_call_is_refused() -> None:
    with pytest.raises(WorkerFailure, match="number of calls differs"):
        compare_outputs(outputs(3), outputs(2))


@pytest.mark.parametrize(
    ("fidelity", "margin", "verdict"),
    [
        (Fidelity(25.0, 0.99, 10.0, 0.995, 0.98, 400), 0.01, QualityVerdict.HELD),
        (Fidelity(25.0, 0.99, 10.0, 0.98, 0.97, 400), 0.01, QualityVerdict.NOT_HELD),
        (Fidelity(19.0, 0.99, 10.0, 1.0, 0.99, 400), 0.01, QualityVerdict.NOT_HELD),
        (Fidelity(25.0, 0.99, 10.0, None, None, 400), 0.01, QualityVerdict.HELD),
    ],
)
def test_fidelity_is_judged_by_decisions_and_noise(fidelity: Fidelity, margin: float, verdict: QualityVerdict) -> None:
    found = judge_fidelity(fidelity, margin)
    assert found.verdict is verdict
    assert "fidelity" in found.basis


def test_the_referee_accepts_another_order_of_the_same_sums() -> None:
    exact = outputs(dtype=torch.float64)
    eager = [[t.float() for t in call] for call in exact]
    assert referee(exact, eager, changed(eager, 1e-7)) == (True, "within twice the original's own rounding error")


def test_the_referee_accepts_a_candidate_that_is_closer_to_the_truth_than_eager() -> None:
    exact = outputs(dtype=torch.float64)
    eager = changed([[t.float() for t in call] for call in exact], 1e-3)
    assert referee(exact, eager, [[t.float() for t in call] for call in exact])[0]


@pytest.mark.parametrize("noise", [1e-3, 1e-2])
def test_the_referee_refuses_a_lower_precision(noise: float) -> None:
    exact = outputs(dtype=torch.float64)
    eager = [[t.float() for t in call] for call in exact]
    passed, reason = referee(exact, eager, changed(eager, noise))
    assert not passed
    assert "output 0: its error against float64 is" in reason


def test_the_referee_finds_one_wrong_sample_among_many() -> None:
    exact = outputs(200, dtype=torch.float64)
    eager = [[t.float() for t in call] for call in exact]
    candidate = [[t.clone() for t in call] for call in eager]
    candidate[77][0][3] *= 1.0003
    passed, reason = referee(exact, eager, candidate)
    assert not passed
    assert f"sample {77 * 16 + 3} has an error" in reason


def test_the_referee_wants_integers_to_be_equal() -> None:
    labels = [[torch.tensor([1, 2, 3])]]
    assert not referee(labels, labels, [[torch.tensor([1, 2, 4])]])[0]


def test_changed_decisions_are_counted_by_class_with_what_the_metric_says_of_them() -> None:
    original = [[torch.eye(3)[[0, 0, 1, 2]]], [torch.eye(3)[[1]]]]
    candidate = [[torch.eye(3)[[0, 1, 1, 1]]], [torch.eye(3)[[0]]]]

    found = decisions_of(original, candidate, [0], gains=[0.0, 1.0, 0.0, -1.0, 0.0])

    assert found is not None
    assert found.samples_by_class == ((0, 2), (1, 2), (2, 1))
    assert set(found.flips) == {Flip(0, 1, 1, 1, 0), Flip(2, 1, 1, 0, 1), Flip(1, 0, 1, 0, 0)}


def test_a_tie_of_the_original_is_no_changed_decision() -> None:
    found = decisions_of([[torch.tensor([[1.0, 1.0]])]], [[torch.tensor([[0.9, 1.0]])]], [0])

    assert found is not None
    assert found.flips == ()


def test_answers_that_decide_nothing_have_no_decisions() -> None:
    assert decisions_of([[torch.ones(2, 3, 4)]], [[torch.ones(2, 3, 4)]], [0]) is None
