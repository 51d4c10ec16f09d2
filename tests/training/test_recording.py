"""Recorded and captured steps: the same numbers as autograd's, and a refusal where a recording would be wrong."""

from __future__ import annotations

import itertools
import random
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from fake_graph import FakeGraph
from phased import Phased, in_the_next_phase
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from vivace.core.errors import NotApplicable, StepChanged
from vivace.core.plan import Plan
from vivace.core.training.job import Training
from vivace.techniques.compile.recorded_step import RecordedStep
from vivace.techniques.memory.fused_optimizer import FusedOptimizer
from vivace.techniques.memory.narrow_optimizer_state import NarrowOptimizerState
from vivace.testing.tiny_training import image_job, job, momentum
from vivace.training.captured import WARM_STEPS, CapturedGradients
from vivace.training.loop import Loop
from vivace.training.recording import RecordedGradients
from vivace.training.rig import assemble
from vivace.training.service import equip, open_step


def trained(work: Training, *techniques: Any, steps: int = 12) -> dict[str, torch.Tensor]:
    rig = equip(assemble(work), work, Plan(techniques))
    loop = Loop(work, rig, None, "")
    while loop.position.steps < steps:
        loop.advance(steps)
    return {name: value.clone() for name, value in rig.model.state_dict().items()}


@pytest.mark.parametrize("work", [job(), image_job()], ids=["dropout", "batch-normalization"])
def test_a_recorded_training_is_the_original_to_the_bit(work: Training) -> None:
    plain, recorded = trained(work), trained(work, RecordedStep())

    assert all(torch.equal(value, recorded[name]) for name, value in plain.items())


@pytest.mark.parametrize(
    "optimizer",
    [momentum, lambda p: torch.optim.Adam(p, 1e-2, amsgrad=True), lambda p: torch.optim.AdamW(p, 1e-2)],
    ids=["sgd", "amsgrad", "adamw"],
)
def test_a_kernel_called_directly_takes_the_steps_of_the_optimizers_own(optimizer: Callable[..., Any]) -> None:
    work = job(optimizer=optimizer, schedule=lambda o: torch.optim.lr_scheduler.StepLR(o, 1, 0.5), advance="step")

    def fused(parameters: Any) -> Any:
        found = optimizer(parameters)
        for group in found.param_groups:
            group["fused"], group["foreach"] = True, False
        return found

    own = trained(job(optimizer=fused, schedule=work.schedule, advance="step"))
    direct = trained(work, FusedOptimizer())

    assert all(torch.equal(value, direct[name]) for name, value in own.items())


def clipped(parameters: Any) -> torch.optim.Optimizer:
    """An optimizer whose step clips gradients first."""
    kept = list(parameters)
    found = torch.optim.SGD(kept, 0.5)

    def step(optimizer: torch.optim.SGD, closure: Any = None) -> Any:
        nn.utils.clip_grad_norm_(kept, 0.01)
        return torch.optim.SGD.step(optimizer, closure)

    found.step = types.MethodType(step, found)  # type: ignore[method-assign]
    return found


@pytest.mark.parametrize("schedule", [None, lambda o: torch.optim.lr_scheduler.StepLR(o, 1, 0.5)], ids=["", "schedule"])
def test_a_step_that_was_put_in_the_place_of_the_optimizers_own_is_taken(schedule: Any) -> None:
    work = job(optimizer=clipped, schedule=schedule)
    plain, fused = trained(work), trained(work, FusedOptimizer())

    for name, value in plain.items():
        torch.testing.assert_close(fused[name], value, rtol=0, atol=1e-5)


def test_a_step_is_timed_for_longer_than_its_schedule_lasts() -> None:
    work = job(schedule=lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=5), advance="step")
    step = open_step({}, (work, Plan()))

    for _ in range(12):
        step()

    assert step.steps == 12


def test_moments_of_an_optimizer_that_looks_at_all_gradients_at_once_are_not_narrowed() -> None:
    work = job(optimizer=clipped)

    with pytest.raises(NotApplicable, match="must see all gradients at once"):
        NarrowOptimizerState().equip(assemble(work), work)


def test_parameters_that_share_a_gradient_each_get_their_own() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other, self.idle = (nn.Parameter(torch.zeros(3)) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return ((self.one + self.other) * x).sum()

    rig = assemble(job(model=Sum, loss=lambda model, batch: model(batch)))
    RecordedGradients(rig)(torch.ones(3))
    one, other, idle = rig.model.parameters()

    assert one.grad is not None and other.grad is not None
    assert torch.equal(one.grad, torch.ones(3)) and torch.equal(other.grad, torch.ones(3))
    assert one.grad.data_ptr() != other.grad.data_ptr()
    assert idle.grad is None


def by_value(model: nn.Module, batch: Any) -> torch.Tensor:
    found = model(batch[0]).square().mean()
    return found * 2 if found.item() > 0 else found


def by_chance(model: nn.Module, batch: Any) -> torch.Tensor:
    return model(batch[0]).square().mean() * random.random()


@pytest.mark.parametrize(("loss", "told"), [(by_value, "cannot be recorded"), (by_chance, "random numbers")])
def test_a_step_that_depends_on_values_or_chance_is_refused(loss: Any, told: str) -> None:
    work = job(loss=loss)

    with pytest.raises(NotApplicable, match=told):
        trained(work, RecordedStep())


def by_rare_chance(model: nn.Module, batch: Any) -> torch.Tensor:
    found = functional.cross_entropy(model(batch[0]), batch[1])
    return found * 3 if random.random() < 1e-9 else found


WRITTEN = torch.zeros(())


def by_what_it_wrote(model: nn.Module, batch: Any) -> torch.Tensor:
    found = functional.cross_entropy(model(batch[0]), batch[1])
    WRITTEN.add_(found.detach())
    return found * WRITTEN


COUNT = itertools.count(1)


def by_what_it_counts(model: nn.Module, batch: Any) -> torch.Tensor:
    return functional.cross_entropy(model(batch[0]), batch[1]) * next(COUNT)


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(12, 32), nn.Linear(32, 4)

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return functional.dropout(x, 0.5, self.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = checkpoint(self.middle, self.first(x), use_reentrant=False)
        return self.last(hidden)


class Counting(nn.Linear):
    def __init__(self) -> None:
        super().__init__(12, 4)
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count = self.count + 1
        return super().forward(x) * self.count


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"loss": by_rare_chance}, "random numbers"),
        ({"loss": by_what_it_wrote}, "not the model's"),
        ({"loss": by_what_it_counts}, "recorded twice"),
        ({"model": Checkpointed}, "its backward pass draws"),
        ({"model": Counting}, "in the place of count"),
    ],
    ids=["rare-chance", "written", "counted", "checkpoint-with-dropout", "buffer-replaced"],
)
def test_a_step_whose_recording_would_go_stale_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(NotApplicable, match=told):
        trained(job(**changes), RecordedStep())


def test_a_batch_of_what_may_change_unseen_is_refused() -> None:
    batches = [{"points": np.zeros((2, 12))}]

    with pytest.raises(NotApplicable, match="a batch holds a ndarray"):
        RecordedGradients(assemble(job(data=batches, batch_size=None)))(batches[0])


def with_averaged_weights(model: nn.Module) -> float:
    """A score of other weights, which are put in the model's place and taken away again."""
    kept = [parameter.detach() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    found = float(sum(parameter.detach().sum() for parameter in model.parameters()))
    for parameter, value in zip(model.parameters(), kept, strict=True):
        parameter.data = value.clone()
    return found


def thawed(model: nn.Module) -> float:
    model[0].weight.requires_grad_(True)  # type: ignore[index]
    return 0.0


def told_otherwise(model: nn.Module) -> float:
    model[0].out_features = 33  # type: ignore[assignment,union-attr]
    return 0.0


def half_frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(12, 32), nn.Linear(32, 4))
    model[0].weight.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    "work",
    [
        job(evaluate=with_averaged_weights),
        job(model=half_frozen, evaluate=thawed),
        job(model=Phased, evaluate=in_the_next_phase),
    ],
    ids=["weights-exchanged", "weights-freed", "next-phase"],
)
def test_what_an_evaluation_does_to_the_model_is_seen_by_the_next_step(work: Training) -> None:
    plain, recorded = trained(work, steps=9), trained(work, RecordedStep(), steps=9)

    assert all(torch.equal(value, recorded[name]) for name, value in plain.items())


def test_a_hook_on_a_gradient_is_refused() -> None:
    rig = assemble(job())
    next(rig.model.parameters()).register_hook(lambda gradient: gradient * 2)

    with pytest.raises(NotApplicable, match=r"0\.weight has a hook"):
        RecordedGradients(rig)(next(rig.feed.epoch(0)))


def test_a_model_that_changes_later_is_told_and_not_trained_wrongly_on() -> None:
    class Annealed(nn.Linear):
        factor = 1.0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * self.factor

    rig = assemble(job(model=lambda: Annealed(12, 4)))
    gradients = RecordedGradients(rig)
    batch = next(rig.feed.epoch(0))
    for _ in range(9):
        gradients(batch)
    rig.model.factor = 0.5  # type: ignore[assignment]

    with pytest.raises(StepChanged, match="computes something else by now than when its step was recorded"):
        gradients(batch)


def test_a_captured_step_copies_batches_in_and_leaves_other_shapes_to_autograd() -> None:
    work = job(model=lambda: nn.Linear(12, 4))
    plain, captured = assemble(work), assemble(work)
    gradients = CapturedGradients(captured, FakeGraph(captured.model))
    batches = list(plain.feed.epoch(0))

    for batch in [*batches, *batches]:
        plain.optimizer.zero_grad()
        wanted = plain.forward(batch)
        wanted.backward()
        assert torch.equal(gradients(batch), wanted)
        for own, other in zip(plain.model.parameters(), captured.model.parameters(), strict=True):
            assert torch.equal(own.grad, other.grad)  # type: ignore[arg-type]
    assert len(batches) > WARM_STEPS + 1


def test_what_cannot_be_captured_is_computed_as_before_with_a_warning() -> None:
    rig = assemble(job(model=lambda: nn.Linear(12, 4)))

    class Refusing(FakeGraph):
        def record(self, step: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable[[], None]]:
            raise RuntimeError("operation not permitted when stream is capturing")

    gradients = CapturedGradients(rig, Refusing(rig.model))
    batch = next(rig.feed.epoch(0))
    for _ in range(WARM_STEPS):
        gradients(batch)
    with pytest.warns(RuntimeWarning, match="goes on without its graph: operation not permitted"):
        loss = gradients(batch)

    assert torch.equal(loss, gradients(batch)) and all(one.grad is not None for one in rig.model.parameters())


@pytest.mark.parametrize(
    "change",
    [with_averaged_weights, thawed, told_otherwise],
    ids=["weights-exchanged", "weights-freed", "attribute-set"],
)
def test_a_captured_step_is_captured_anew_after_the_model_has_changed(change: Callable[[nn.Module], float]) -> None:
    rig = assemble(job(model=half_frozen))
    captures = list[int]()

    class Counting(FakeGraph):
        def record(self, step: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable[[], None]]:
            captures.append(1)
            return super().record(step)

    gradients = CapturedGradients(rig, Counting(rig.model))
    batch = next(rig.feed.epoch(0))
    for _ in range(WARM_STEPS + 2):
        gradients(batch)
    before = len(captures)
    change(rig.model)
    gradients(batch)
    gradients(batch)

    assert (before, len(captures)) == (1, 2)
    assert (rig.model[0].weight.grad is not None) == rig.model[0].weight.requires_grad  # type: ignore[index]


@pytest.mark.gpu
def test_a_captured_step_on_a_card_trains_as_autograd_does() -> None:
    from vivace.techniques.target.captured_step import CapturedStep

    def on_card() -> nn.Module:
        return nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 4)).cuda()

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        return nn.functional.cross_entropy(model(batch[0].cuda()), batch[1].cuda())

    work = job(model=on_card, loss=loss, evaluate=None)
    plain, captured = trained(work), trained(work, CapturedStep())

    for name, value in plain.items():
        torch.testing.assert_close(captured[name], value)
