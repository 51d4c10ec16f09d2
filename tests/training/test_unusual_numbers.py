"""Weights that are complex, gradients that are sparse, layers that no cast fits: proved like others, or named."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import vivace as vv
from vivace.core.errors import NotApplicable, UsageError
from vivace.core.measurement import Outcome
from vivace.core.plan import Plan
from vivace.core.technique import Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.techniques.compile.recorded_step import RecordedStep
from vivace.techniques.feed.sample_cache import SampleCache
from vivace.techniques.memory.foreach_optimizer import ForeachOptimizer
from vivace.techniques.memory.fused_optimizer import FusedOptimizer
from vivace.techniques.memory.narrow_optimizer_state import NarrowOptimizerState
from vivace.techniques.precision.bfloat16 import Bfloat16
from vivace.techniques.precision.float16 import Float16
from vivace.testing.tiny_training import adam, job
from vivace.training.examine import Examined, examine
from vivace.training.loop import Loop
from vivace.training.rig import assemble
from vivace.training.service import equip
from vivace.training.step import train_step


class Waves(nn.Module):
    """A complex layer before a real one."""

    def __init__(self) -> None:
        super().__init__()
        self.turning = nn.Parameter(torch.randn(12, 8, dtype=torch.complex64) / 4)
        self.out = nn.Linear(8, 4)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.out((points.to(self.turning.dtype) @ self.turning).abs())
        return answer


class Crossed(nn.Module):
    """Two views of a point, and what they say together."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.both = nn.Linear(12, 6), nn.Linear(12, 5), nn.Bilinear(6, 5, 4)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.both(self.left(points), self.right(points))
        return answer


class Words(nn.Module):
    """Each number of a point as one of 50 words, whose gradients are sparse."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(50, 8, sparse=True), nn.Linear(8, 4)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        numbers = ((points + 4) * 6).clamp(0, 49).long()
        answer: torch.Tensor = self.out(self.words(numbers).mean(1))
        return answer


class LookedUp(nn.Module):
    """The same without a layer for it: the function that looks words up makes their gradients sparse."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Parameter(torch.randn(50, 8)), nn.Linear(8, 4)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        numbers = ((points + 4) * 6).clamp(0, 49).long()
        answer: torch.Tensor = self.out(functional.embedding(numbers, self.words, sparse=True).mean(1))
        return answer


class SparseLater(LookedUp):
    """The same, from the eleventh batch on."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = 0

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        self.batches += self.training
        numbers = ((points + 4) * 6).clamp(0, 49).long()
        found = functional.embedding(numbers, self.words, sparse=self.batches > 10)
        answer: torch.Tensor = self.out(found.mean(1))
        return answer


def momentum(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 0.05, momentum=0.9)


def nesterov(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 0.05, momentum=0.9, nesterov=True)


def tensor_rate(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, torch.tensor(1e-2))


def in_doubles(model: nn.Module, batch: Any) -> torch.Tensor:
    return functional.cross_entropy(model(batch[0].double()), batch[1])


def complex_job(optimizer: Any = adam) -> Training:
    return job(model=Waves, optimizer=optimizer, evaluate=None)


def sparse_job(optimizer: Any = momentum) -> Training:
    return job(model=Words, optimizer=optimizer, evaluate=None)


def looked_up_job(optimizer: Any = momentum) -> Training:
    return job(model=LookedUp, optimizer=optimizer, evaluate=None)


def crossed_job() -> Training:
    return job(model=Crossed, evaluate=None)


def double_job() -> Training:
    return job(model=lambda: nn.Linear(12, 4).double(), loss=in_doubles, evaluate=None)


def examined(work: Training, technique: Technique) -> Examined:
    return examine(work, lambda rig: equip(rig, work, Plan((technique,))), technique.unit_roundoff)


@pytest.mark.parametrize(
    ("technique", "work", "told"),
    [
        (FusedOptimizer(), complex_job(), "turning holds complex numbers"),
        (FusedOptimizer(), complex_job(momentum), "turning holds complex numbers"),
        (FusedOptimizer(), sparse_job(), r"words\.weight has sparse gradients"),
        (FusedOptimizer(), sparse_job(torch.optim.Adagrad), r"words\.weight has sparse gradients"),
        (FusedOptimizer(), looked_up_job(), r"words has sparse gradients, which no fused kernel takes"),
        (FusedOptimizer(), looked_up_job(torch.optim.Adagrad), r"words has sparse gradients"),
        (Bfloat16(), crossed_job(), "both is an nn.Bilinear"),
        (Float16(), crossed_job(), "both is an nn.Bilinear"),
        (Float16(), complex_job(), "turning is no float32"),
        (Bfloat16(), double_job(), r"no float32 parameter to cast \(it has float64\)"),
        (ForeachOptimizer(), job(optimizer=tensor_rate), "the learning rate is a tensor"),
        (ForeachOptimizer(), job(optimizer=nesterov), "Nesterov's momentum"),
        (RecordedStep(), sparse_job(), r"the gradient of words\.weight is sparse"),
    ],
    ids=lambda value: str(value) if isinstance(value, Technique) else None,
)
def test_a_technique_that_these_numbers_do_not_fit_says_so(technique: Technique, work: Training, told: str) -> None:
    with pytest.raises(NotApplicable, match=told):
        train_step(equip(assemble(work), work, Plan((technique,))), next(assemble(work).feed.epoch(0)))


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # PyTorch's own, of its Adagrad
@pytest.mark.parametrize("optimizer", [momentum, torch.optim.Adagrad], ids=["sgd", "adagrad"])
@pytest.mark.parametrize("technique", [SampleCache(), Bfloat16(), ForeachOptimizer(), NarrowOptimizerState()], ids=str)
def test_steps_with_sparse_gradients_are_compared(technique: Technique, optimizer: Any) -> None:
    found = examined(sparse_job(optimizer), technique)

    assert [one for one in found.agreements if not one.holds] == []
    assert "words.weight" in {one.name for one in found.agreements}


def test_a_sparse_gradient_is_given_to_its_optimizer_as_one() -> None:
    work = job(model=lambda: nn.Sequential(nn.Embedding(50, 4, sparse=True)), loss=of_words, evaluate=None,
               optimizer=lambda p: torch.optim.SparseAdam(list(p), 1e-2))  # fmt: skip

    assert [one for one in examined(work, Bfloat16()).agreements if not one.holds] == []


def of_words(model: nn.Module, batch: Any) -> torch.Tensor:
    return functional.cross_entropy(model(((batch[0] + 4) * 6).clamp(0, 49).long()).mean(1), batch[1])


@dataclasses.dataclass(frozen=True)
class _Conjugated(SampleCache):
    """Planted: the imaginary parts of gradients have the wrong sign."""

    def equip(self, rig: Rig, job: Training) -> Rig:
        def passes(batch: Any) -> torch.Tensor:
            rig.optimizer.zero_grad()
            loss = rig.forward(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            for one in rig.model.parameters():
                assert one.grad is not None
                one.grad = one.grad.conj().resolve_conj()
            return loss.detach()

        return rig.replace(gradients=passes)


def test_a_wrong_imaginary_part_is_caught() -> None:
    wrong = [one.name for one in examined(complex_job(), _Conjugated()).agreements if not one.holds]

    assert "turning" in wrong
    assert "out.weight" not in {one.name for one in examined(complex_job(), _Conjugated()).agreements if not one.holds}


def test_coarser_products_beside_complex_weights_hold() -> None:
    assert [one for one in examined(complex_job(), Bfloat16()).agreements if not one.holds] == []


def test_adagrad_which_makes_its_state_before_the_first_step_is_fused() -> None:
    work = job(optimizer=lambda p: torch.optim.Adagrad(p, 1e-2), evaluate=None)

    assert equip(assemble(work), work, Plan((FusedOptimizer(),))).optimizer.param_groups[0]["fused"]
    assert [one for one in examined(work, FusedOptimizer()).agreements if not one.holds] == []


@pytest.mark.parametrize("work", [complex_job(), sparse_job()], ids=["complex", "sparse"])
def test_a_training_with_such_state_goes_on_exactly(work: Training, tmp_path: Path) -> None:
    whole = Loop(work, assemble(work), tmp_path / "whole", "x")
    whole.advance(9)
    first = Loop(work, assemble(work), tmp_path / "keep", "x")
    first.advance(4)
    first.save()
    second = Loop(work, assemble(work), tmp_path / "keep", "x")
    assert second.resume().steps == first.position.steps
    second.advance(9 - first.position.steps)

    state = [one.rig.optimizer.state_dict()["state"][0] for one in (whole, second)]
    assert [one.layout for one in state[0].values()] == [one.layout for one in state[1].values()]
    for one, other in zip(whole.rig.model.parameters(), second.rig.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("optimizer", [momentum, torch.optim.Adagrad], ids=["sgd", "adagrad"])
def test_a_function_that_makes_gradients_sparse_leaves_the_fused_kernel_out_with_a_reason(optimizer: Any) -> None:
    run = vv.train(looked_up_job(optimizer), only=["fused-optimizer"], time="20s")

    assert [(one.outcome, one.reason) for one in run.trials] == [
        (Outcome.UNSUPPORTED, "words has sparse gradients, which no fused kernel takes")
    ]
    assert (str(run.plan), run.steps) == ("original", 21)


def test_a_fused_kernel_that_is_asked_for_and_takes_no_sparse_gradients_is_refused() -> None:
    with pytest.raises(UsageError, match=r"cannot be used for this job: words has sparse gradients.*or give none"):
        vv.train(looked_up_job(), plan=["fused-optimizer"])


def test_gradients_that_become_sparse_later_are_the_optimizers_own_affair() -> None:
    work = job(model=SparseLater, optimizer=momentum, evaluate=None)

    runs = [Loop(work, equip(assemble(work), work, Plan(plan)), None, "") for plan in ((), (FusedOptimizer(),))]
    losses = [[one for _ in range(3) for one in loop.advance(100).losses] for loop in runs]

    assert len(losses[0]) == 21
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
