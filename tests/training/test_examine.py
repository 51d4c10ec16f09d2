"""Parity of single steps: what is right passes, and each planted fault is caught and named."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vivace.api.parity import judged
from vivace.core.errors import UsageError
from vivace.core.plan import Plan
from vivace.core.quality import QualityVerdict
from vivace.core.technique import Effect, Technique
from vivace.core.training.job import Training
from vivace.core.training.parity import Kind
from vivace.techniques.feed.sample_cache import SampleCache
from vivace.techniques.memory.channels_last import ChannelsLast
from vivace.techniques.memory.fused_optimizer import FusedOptimizer
from vivace.techniques.memory.gradient_accumulation import GradientAccumulation
from vivace.techniques.parallel.threads import Threads
from vivace.techniques.precision.bfloat16 import Bfloat16
from vivace.testing import planted_training as planted
from vivace.testing.tiny_training import image_job, job
from vivace.training.examine import Examined, examine
from vivace.training.service import equip


def examined(work: Training, *techniques: Technique) -> Examined:
    plan = Plan(techniques)
    roundoff = max((technique.unit_roundoff for technique in plan), default=2.0**-24)
    return examine(work, lambda rig: equip(rig, work, plan), roundoff)


def named(found: Examined) -> set[tuple[Kind, str]]:
    return {(one.kind, one.name) for one in found.agreements if not one.holds}


@pytest.mark.parametrize(
    "techniques",
    [
        (), (Threads(2),), (SampleCache(),), (FusedOptimizer(),), (GradientAccumulation(3),), (Bfloat16(),),
        (SampleCache(), FusedOptimizer(), GradientAccumulation(2)),
    ],
    ids=str,
)  # fmt: skip
def test_what_computes_the_same_holds(techniques: tuple[Technique, ...]) -> None:
    found = examined(job(), *techniques)

    assert named(found) == set()
    assert found.reference == "float64"
    assert {one.kind for one in found.agreements} >= {Kind.GRADIENT}
    assert "dropout is off while gradients are compared" in found.notes


@pytest.mark.parametrize("technique", [SampleCache(), ChannelsLast(), FusedOptimizer(), Bfloat16()], ids=str)
def test_convolutions_and_their_statistics_hold(technique: Technique) -> None:
    found = examined(image_job(), technique)

    assert named(found) == set()
    assert any(one.kind is Kind.BUFFER and "running_mean" in one.name for one in found.agreements)


def test_a_detached_branch_is_named_by_its_parameters() -> None:
    assert {(Kind.GRADIENT, "0.weight"), (Kind.GRADIENT, "0.bias")} <= named(
        examined(job(), planted.DetachedBranch(layer="0"))
    )
    assert (Kind.GRADIENT, "3.weight") not in named(examined(job(), planted.DetachedBranch(layer="0")))


def test_parts_that_count_alike_are_caught() -> None:
    assert (Kind.GRADIENT, "3.bias") in named(examined(job(), planted.UnweightedAccumulation()))


@pytest.mark.parametrize("techniques", [(), (Bfloat16(),)], ids=["float32", "bfloat16"])
def test_a_dropped_scale_is_caught_although_adam_hides_it(techniques: tuple[Technique, ...]) -> None:
    found = named(examined(job(), planted.DroppedScale(), *techniques))

    assert {(Kind.GRADIENT, f"{layer}.{kind}") for layer in (0, 3) for kind in ("weight", "bias")} <= found


def test_stale_statistics_are_caught() -> None:
    assert (Kind.BUFFER, "1.running_var") in named(examined(image_job(), planted.StaleBuffer()))


def test_a_feed_that_overwrites_its_batches_is_caught() -> None:
    assert {kind for kind, _ in named(examined(job(), planted.SharedBatch()))} == {Kind.BATCH}


@pytest.mark.parametrize("techniques", [(), (Bfloat16(),)], ids=["float32", "bfloat16"])
def test_a_parameter_that_never_moves_is_caught(techniques: tuple[Technique, ...]) -> None:
    found = examined(job(), planted.ForgottenParameter(name_of_parameter="0.bias"), *techniques)

    assert named(found) == {(Kind.UPDATE, "0.bias")}


@pytest.mark.parametrize("techniques", [(), (Bfloat16(),)], ids=["float32", "bfloat16"])
def test_a_learning_rate_that_was_changed_is_caught(techniques: tuple[Technique, ...]) -> None:
    found = examined(job(), planted.ShortStep(share=0.9), *techniques)

    assert {kind for kind, _ in named(found)} == {Kind.UPDATE}
    assert len(named(found)) == 4


def test_the_worst_tensor_comes_first() -> None:
    found = examined(job(), planted.DetachedBranch(layer="0")).agreements

    assert not found[0].holds
    assert [one.holds for one in found] == sorted(one.holds for one in found)


def test_a_loss_that_is_not_finite_is_told_before_anything_is_compared() -> None:
    def broken(model: nn.Module, batch: object) -> torch.Tensor:
        return next(model.parameters()).sum() * torch.tensor(float("nan"))

    with pytest.raises(UsageError, match="the loss of the original is nan in step 0"):
        examined(job(loss=broken))


def test_a_model_without_float64_is_compared_with_float32() -> None:
    class Stubborn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(12, 4)

        def forward(self, points: torch.Tensor) -> torch.Tensor:
            return self.layer(points.float())

    found = examined(job(model=Stubborn), FusedOptimizer())

    assert found.reference == "float32"
    assert named(found) == set()


class Jittered(nn.Module):
    """Draws from a generator of its own; without a `seed` it draws other numbers each time that it is made."""

    def __init__(self, seed: int | None) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 4)
        self.chance = torch.Generator()
        if seed is None:
            self.chance.seed()
        else:
            self.chance.manual_seed(seed)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        drawn = torch.randn(points.shape, generator=self.chance, dtype=points.dtype)
        return self.layer(points + drawn)


def test_a_model_with_a_generator_of_its_own_is_compared_with_itself_in_float32() -> None:
    work = job(model=lambda: Jittered(seed=1))
    found = examined(work)

    assert (found.reference, named(found)) == ("float32", set())
    assert any("draws other numbers, or computes something else, in float64" in note for note in found.notes)
    wrong = examined(work, planted.DroppedScale())
    assert {(Kind.GRADIENT, "layer.weight"), (Kind.GRADIENT, "layer.bias")} <= named(wrong)
    assert not any(one.is_undecided for one in wrong.agreements)


def test_of_a_model_that_is_another_one_each_time_nothing_can_be_told() -> None:
    found = examined(job(model=lambda: Jittered(seed=None)))
    off = [one for one in found.agreements if not one.holds]

    assert off and all(one.is_undecided for one in off)
    verdict, reason = judged(Effect.EXACT, found.agreements, None, None)
    assert verdict is QualityVerdict.CANNOT_TELL
    assert "two runs of the original differ by" in reason


@pytest.mark.parametrize("techniques", [(), (Bfloat16(),)], ids=["float32", "bfloat16"])
def test_dropout_that_was_lost_is_caught_though_it_is_off_while_gradients_are_compared(
    techniques: tuple[Technique, ...],
) -> None:
    def dropping() -> nn.Module:
        return nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 4))

    work = job(model=dropping)

    assert named(examined(work, *techniques)) == set()
    assert named(examined(work, planted.LostDropout(), *techniques)) == {(Kind.GRADIENT, "dropout")}
