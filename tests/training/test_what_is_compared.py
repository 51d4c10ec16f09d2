"""What a proof compares of a step: frozen parameters, whole numbers, complex and sparse gradients too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import vivace as vv
from vivace.core.plan import Plan
from vivace.core.quality import QualityVerdict
from vivace.core.technique import Technique
from vivace.core.training.job import Training
from vivace.core.training.parity import Kind
from vivace.techniques.memory.fused_optimizer import FusedOptimizer
from vivace.techniques.memory.gradient_accumulation import GradientAccumulation
from vivace.techniques.precision.bfloat16 import Bfloat16
from vivace.testing import planted_training as planted
from vivace.testing.tiny_training import Points, image_job, job, momentum
from vivace.training.examine import Examined, examine
from vivace.training.service import equip


def examined(work: Training, *techniques: Technique) -> Examined:
    roundoff = max((technique.unit_roundoff for technique in techniques), default=2.0**-24)
    return examine(work, lambda rig: equip(rig, work, Plan(techniques)), roundoff)


def off(found: Examined) -> set[tuple[Kind, str]]:
    return {(one.kind, one.name) for one in found.agreements if not one.holds}


def frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 4))
    model[0].weight.requires_grad_(False)
    return model


@pytest.mark.parametrize("beside", [(), (Bfloat16(),)], ids=["float32", "bfloat16"])
def test_a_frozen_parameter_that_a_plan_trains_is_caught(beside: tuple[Technique, ...]) -> None:
    work = job(model=frozen)

    assert off(examined(work, *beside)) == set()
    wrong = examined(work, *beside, planted.TrainedFrozen(name_of_parameter="0.weight"))
    assert off(wrong) == {(Kind.UPDATE, "0.weight")}
    assert str(wrong.agreements[0]) == "update of 0.weight in step 0: it moves, and the original's is frozen"


class Averaged(nn.Module):
    """Its loss moves a frozen average of its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.average = nn.Linear(12, 4), nn.Linear(12, 4).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.average.weight.lerp_(self.layer.weight, 0.1)
        return self.layer(x) + self.average(x)  # type: ignore[no-any-return]


def test_a_frozen_parameter_that_the_job_moves_itself_holds() -> None:
    assert off(examined(job(model=Averaged), FusedOptimizer())) == set()
    assert off(examined(job(model=Averaged), Bfloat16())) == set()


def test_whole_numbers_that_go_wrong_are_caught() -> None:
    for beside in ((), (Bfloat16(),)):
        assert off(examined(image_job(), *beside)) == set()
        wrong = off(examined(image_job(), *beside, planted.CountedTwice()))
        assert wrong == {(Kind.BUFFER, "1.num_batches_tracked")}


class Spectral(nn.Module):
    """Multiplies with complex weights among the frequencies."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(7, dtype=torch.complex64))
        self.register_buffer("turn", torch.ones(7, dtype=torch.complex64))
        self.layer = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turned = torch.fft.irfft(torch.fft.rfft(x) * self.weight * self.turn.clone(), n=12)
        with torch.no_grad():
            self.turn.mul_(torch.tensor(1j, dtype=self.turn.dtype))
        return self.layer(turned)  # type: ignore[no-any-return]


@pytest.mark.parametrize("optimizer", [momentum, torch.optim.Adam], ids=["momentum", "adam"])
def test_both_parts_of_complex_gradients_are_compared(optimizer: Any) -> None:
    work = job(model=Spectral, optimizer=optimizer)
    right = examined(work)

    assert off(right) == set() and right.reference == "float64"
    assert {(Kind.GRADIENT, "weight"), (Kind.BUFFER, "turn")} <= {(one.kind, one.name) for one in right.agreements}
    assert (Kind.GRADIENT, "weight") in off(examined(work, planted.RealGradients()))
    assert vv.parity(work, Plan((planted.SkippedUpdate(every=4),))).verdict is QualityVerdict.NOT_HELD
    assert vv.train(work, plan=Plan((GradientAccumulation(2),))).dropped == ()


class Words(Points):
    """Points as twelve numbers of words."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        points, label = super().__getitem__(index)
        return (points * 4).long().clamp(-20, 19) + 20, label


class Embedded(nn.Module):
    """Words by rows of a table, of which a step has few."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(40, 6, sparse=True)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.table(words).mean(1)[:, :4]  # type: ignore[no-any-return]


def sparse_job(optimizer: Any) -> Training:
    return job(model=Embedded, data=Words(), evaluate=None, optimizer=optimizer)


@pytest.mark.parametrize(
    "optimizer",
    [lambda parameters: torch.optim.SparseAdam(parameters, 1e-2), lambda parameters: torch.optim.SGD(parameters, 0.1)],
    ids=["sparse adam", "sgd"],
)
def test_sparse_gradients_are_compared(optimizer: Any) -> None:
    work = sparse_job(optimizer)

    assert off(examined(work)) == set() and off(examined(work, Bfloat16())) == set()
    assert (Kind.GRADIENT, "table.weight") in off(examined(work, planted.DroppedScale()))
    assert vv.parity(work, Plan((planted.SkippedUpdate(every=4),))).verdict is QualityVerdict.NOT_HELD


def test_a_training_with_sparse_gradients_is_proved_in_the_midst_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vivace.api.running.proofs.SHARE", 1e9)
    work = sparse_job(lambda parameters: torch.optim.SparseAdam(parameters, 1e-2))

    found = vv.train(work, plan=Plan((GradientAccumulation(2),)))

    assert {one.verdict for one in found.proofs} == {QualityVerdict.HELD} and found.unproved == ""
