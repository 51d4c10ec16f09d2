"""The number that a step returns is compared too: a plan with right gradients and a wrong loss is caught, and named."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import vivace as vv
from vivace.core.plan import Plan
from vivace.core.quality import QualityVerdict
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.parity import Kind
from vivace.core.training.rig import Rig
from vivace.report.pages import page_of
from vivace.report.reading import read_run
from vivace.techniques.memory.channels_last import ChannelsLast
from vivace.techniques.memory.fused_optimizer import FusedOptimizer
from vivace.techniques.memory.gradient_accumulation import GradientAccumulation
from vivace.techniques.precision.bfloat16 import Bfloat16
from vivace.testing.planted_losses import LastPartsLoss, ScaledLoss, StaleLoss
from vivace.testing.tiny_training import Points, image_job, job, loss
from vivace.training.agreement import Judge
from vivace.training.examine import examine
from vivace.training.proof import drawn
from vivace.training.service import equip
from vivace.training.step import train_step
from vivace.training.trace import Trace

WRONG = [ScaledLoss(), ScaledLoss(factor=1.001), LastPartsLoss(), StaleLoss()]


@pytest.mark.parametrize("fault", WRONG, ids=str)
def test_a_wrong_loss_with_right_gradients_is_caught_and_named(fault: Technique) -> None:
    found = vv.parity(job(), Plan((fault,)))

    assert found.verdict is QualityVerdict.NOT_HELD
    assert {one.kind for one in found.culprits} == {Kind.LOSS}
    assert found.reason.startswith("the loss itself in step ")


@pytest.mark.parametrize("beside", [Bfloat16(), GradientAccumulation(2)], ids=str)
def test_it_is_caught_beside_narrow_numbers_and_parts(beside: Technique) -> None:
    assert vv.parity(job(), Plan((beside,))).verdict is QualityVerdict.HELD
    assert vv.parity(job(), Plan((beside, ScaledLoss()))).reason.startswith("the loss itself in step ")


def test_a_training_is_not_given_a_plan_that_would_show_another_loss(tmp_path: Path) -> None:
    wanted = vv.train(job(), plan=["fused-optimizer"])

    found = vv.train(job(), plan=Plan((FusedOptimizer(), ScaledLoss())), out=tmp_path)

    assert str(found.plan) == "fused-optimizer" and found.losses == wanted.losses
    assert found.parity is not None and "the loss itself in step " in " ".join(found.parity.notes)
    assert "the loss itself in step " in page_of(read_run(tmp_path))


def test_a_loss_that_is_told_wrongly_late_is_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vivace.api.running.proofs.SHARE", 1e9)
    late = ScaledLoss(after=30)
    assert vv.parity(job(epochs=6), Plan((FusedOptimizer(), late))).verdict is QualityVerdict.HELD

    found = vv.train(job(epochs=6), plan=Plan((FusedOptimizer(), late)))

    assert str(found.plan) == "fused-optimizer"
    assert "the loss itself in step" in found.dropped[0] and f"{late} was taken out" in found.dropped[0]


@dataclasses.dataclass(frozen=True)
class Together(Technique):
    """Takes steps in one go, and returns their losses times `factor`."""

    factor: float = 1.0

    stage = Stage.TARGET
    family = Family.SYSTEM
    effect = Effect.EXACT
    source = "planted"

    def equip(self, rig: Rig, job: Training) -> Rig:
        def several(epoch: int, first: int, most: int) -> torch.Tensor:
            batches = list(rig.feed.epoch(epoch, skip=first))[:most]
            return torch.stack([train_step(rig, batch) for batch in batches]) * self.factor

        return rig.replace(several=several)


def off(work: Training, technique: Technique) -> set[tuple[Kind, int]]:
    found = examine(work, lambda rig: equip(rig, work, Plan((technique,))), technique.unit_roundoff)
    return {(one.kind, one.step) for one in found.agreements if not one.holds}


def test_losses_of_steps_in_one_go_are_those_of_single_steps() -> None:
    assert off(job(), Together()) == set()
    assert off(job(), Together(0.5)) == {(Kind.LOSS, number) for number in range(3)}


def test_losses_are_compared_over_draws_where_masks_differ() -> None:
    def side(factor: float) -> Any:
        chance = torch.Generator().manual_seed(int(1 / factor))
        gradient = torch.ones(4, dtype=torch.float64)

        def draw(seed: int) -> Trace:
            noise = 1 + 0.1 * float(torch.randn((), generator=chance))
            return Trace(factor * noise, {"weight": gradient * noise}, {}, {})

        return draw

    right = drawn.compared(side(1.0), side(1.0), 0, 0, 2.0**-24)
    wrong = drawn.compared(side(1.0), side(0.5), 0, 0, 2.0**-24)

    assert all(one.holds for one in right)
    assert Kind.LOSS in {one.kind for one in wrong if not one.holds}


def fitted() -> nn.Module:
    """A layer that tells all points apart by far more than a float32 exponential can show."""
    data, model = Points(), nn.Linear(12, 4)
    centres = torch.stack([data.points[data.labels == number].mean(0) for number in range(4)])
    with torch.no_grad():
        model.weight.copy_(40 * centres)
        model.bias.copy_(-20 * centres.square().sum(1))
    return model


class Float32Alone(nn.Module):
    """A model that computes in float32 whatever it is given, and is almost right."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 12)
        with torch.no_grad():
            self.layer.weight.copy_(torch.eye(12) + 1e-4 * torch.randn(12, 12))
            self.layer.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x.float(), self.layer.weight.float(), self.layer.bias.float())


def apart(model: nn.Module, batch: Any) -> torch.Tensor:
    """How far a model is from giving back what it is given: a number that is small by nature."""
    return functional.mse_loss(model(batch[0]), batch[0].to(next(model.parameters()).dtype))


def large(model: nn.Module, batch: Any) -> torch.Tensor:
    """A loss that loses its digits to a term that is as large and learns nothing."""
    found = loss(model, batch)
    return found + 1000 * found.detach() - 1000 * found.detach().float()


@pytest.mark.parametrize(
    ("work", "beside"),
    [
        (job(model=fitted), GradientAccumulation(2)), (job(model=fitted), Bfloat16()),
        (job(model=Float32Alone, loss=apart), GradientAccumulation(2)), (job(loss=large), GradientAccumulation(2)),
        (job(loss=lambda model, batch: -loss(model, batch)), Bfloat16()), (image_job(), Bfloat16()),
        (image_job(), ChannelsLast()),
    ],
    ids=["fitted", "fitted, narrow", "float32 alone", "cancelling", "negative", "images, narrow", "images"],
)  # fmt: skip
def test_right_losses_hold_where_rounding_is_large_beside_them(work: Training, beside: Technique) -> None:
    assert off(work, beside) == set()


def test_a_loss_that_is_not_finite_is_told() -> None:
    right, wrong = Trace(1.0, {}, {}, {}), Trace(float("nan"), {}, {}, {})

    (found,) = Judge().agreements(0, right, right, wrong, first=True)

    assert str(found) == "the loss itself in step 0: it is nan"
