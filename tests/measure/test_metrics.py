"""The metrics, against scikit-learn and PyTorch."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from sklearn.metrics import accuracy_score, top_k_accuracy_score
from torch.nn import functional

from vivace.core.errors import UsageError
from vivace.measure import metrics

SCORES = torch.randn(50, 5, generator=torch.Generator().manual_seed(0))
CLASSES = torch.randint(0, 5, (50,), generator=torch.Generator().manual_seed(1))


@dataclasses.dataclass
class Answer:
    logits: torch.Tensor
    hidden: torch.Tensor


def test_accuracy_is_sklearns() -> None:
    assert metrics.accuracy(SCORES, CLASSES).mean().item() == pytest.approx(
        accuracy_score(CLASSES.numpy(), SCORES.argmax(1).numpy())
    )


def test_top_k_is_sklearns() -> None:
    expected = top_k_accuracy_score(CLASSES.numpy(), SCORES.numpy(), k=3)
    assert metrics.top_k(3)(SCORES, CLASSES).mean().item() == pytest.approx(expected)


def test_cross_entropy_is_torchs_with_its_sign_turned() -> None:
    expected = -functional.cross_entropy(SCORES, CLASSES, reduction="none")
    torch.testing.assert_close(metrics.negative_cross_entropy(SCORES, CLASSES), expected)


def test_squared_error_is_torchs_with_its_sign_turned() -> None:
    target = torch.randn(50, 5)
    expected = -functional.mse_loss(SCORES, target, reduction="none").mean(1)
    torch.testing.assert_close(metrics.negative_mean_squared_error(SCORES, target), expected)


@pytest.mark.parametrize(
    "output",
    [
        (SCORES,),
        {"scores": SCORES},
        {"logits": SCORES, "hidden": CLASSES},
        Answer(SCORES, SCORES),
        [SCORES],
        SCORES.numpy(),
    ],
)
def test_answers_may_be_nested(output: Any) -> None:
    assert torch.equal(metrics.accuracy(output, CLASSES), metrics.accuracy(SCORES, CLASSES))


def test_an_ambiguous_answer_says_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"2 tensors and none is called logits.*metric=lambda"):
        metrics.accuracy((SCORES, SCORES), CLASSES)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match=r"accuracy received scores of shape \[50, 5\] and targets of shape \[49\]"):
        metrics.accuracy(SCORES, CLASSES[:49])


def test_positions_of_a_sample_are_averaged() -> None:
    scores = torch.eye(3).expand(2, 3, 3)
    target = torch.tensor([[0, 1, 2], [0, 0, 0]])
    torch.testing.assert_close(metrics.accuracy(scores, target), torch.tensor([1.0, 1 / 3]))


def test_a_metric_has_a_name_for_messages() -> None:
    assert metrics.top_k(5).__name__ == "top_k(5)"


def test_zero_k_is_refused() -> None:
    with pytest.raises(UsageError, match="k=0; allowed is 1 or more"):
        metrics.top_k(0)
