"""Faults of updates that one step does not show are found in steps that are taken one after the other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

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
from vivace.testing.tiny_training import image_job, job, momentum
from vivace.training.proof.in_a_row import InARow
from vivace.training.rig import assemble
from vivace.training.service import equip

FAULTS = [
    *(planted.SkippedUpdate(every=every) for every in range(2, 8)),
    planted.LostState(before=True), planted.LostState(before=False), planted.DoubledMomentum(), planted.CapturedRate(),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_of_later_updates_is_found_before_the_run(fault: Technique) -> None:
    found = vv.parity(job(optimizer=momentum), Plan((fault,)))

    assert found.verdict is QualityVerdict.NOT_HELD
    assert {one.kind for one in found.culprits} <= {Kind.UPDATE, Kind.STATE}


@pytest.mark.parametrize("fault", [planted.SkippedUpdate(every=5), planted.LostState()], ids=str)
def test_it_is_found_of_adam_too_beside_narrow_numbers_and_parts(fault: Technique) -> None:
    for others in ((), (Bfloat16(),), (GradientAccumulation(2),)):
        assert vv.parity(job(), Plan((*others, fault))).verdict is QualityVerdict.NOT_HELD


class Drawing(torch.optim.Optimizer):
    """Adds noise of its own to every update."""

    def __init__(self, parameters: object) -> None:
        super().__init__(parameters, {"lr": 0.01})  # type: ignore[arg-type]

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for one in group["params"]:
                one.sub_(group["lr"] * (one.grad + 0.1 * torch.randn_like(one)))


class Writing(torch.optim.SGD):
    """Decays by writing into the gradients, so that these are others after its step."""

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for one in group["params"]:
                one.grad.add_(one, alpha=0.5)
        super().step()


@pytest.mark.parametrize(
    "work",
    [
        job(), job(optimizer=momentum), job(optimizer=Drawing),
        job(optimizer=lambda parameters: Writing(parameters, 0.1)),
        job(optimizer=lambda parameters: torch.optim.Adam(parameters, 0.0)),
        job(optimizer=lambda parameters: torch.optim.SGD(parameters, 1e-9)),
        job(optimizer=lambda parameters: torch.optim.RMSprop(parameters, 1e-3, momentum=0.5, centered=True)),
    ],
    ids=["adam", "momentum", "drawing", "writing", "at rest", "hardly moving", "rmsprop"],
)  # fmt: skip
def test_steps_in_a_row_of_what_is_right_hold(work: Training) -> None:
    for plan in (Plan(), Plan((GradientAccumulation(2),))):
        found = InARow(work, equip(assemble(work), work, plan), 0).fed(10)

        assert all(one.holds for one in found)


@pytest.mark.parametrize("make", [job, image_job], ids=["points", "images"])
@pytest.mark.parametrize("optimizer", [momentum, torch.optim.Adam, torch.optim.AdamW], ids=["sgd", "adam", "adamw"])
def test_a_fused_kernel_keeps_what_the_optimizer_would(optimizer: object, make: Callable[..., Training]) -> None:
    work = make(optimizer=optimizer)

    found = InARow(work, equip(assemble(work), work, Plan((FusedOptimizer(),))), 0).fed(10)

    assert {one.kind for one in found} == {Kind.STATE} and all(one.holds for one in found)


@pytest.mark.parametrize(
    "late", [planted.SkippedUpdate(every=7, after=30), planted.LostState(before=False, after=30)], ids=str
)
def test_an_update_that_goes_wrong_late_and_not_always_is_taken_out_alone(
    late: Technique, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vivace.api.running.proofs.SHARE", 1e9)
    monkeypatch.setattr("vivace.api.running.drive.SAVING_SHARE", -1.0)
    work, plan = job(epochs=7), Plan((FusedOptimizer(), late))
    assert vv.parity(work, plan).verdict is QualityVerdict.HELD

    found = vv.train(work, plan=plan)

    assert str(found.plan) == "fused-optimizer" and found.steps == 49
    assert f"{late} was taken out" in found.dropped[0]
    assert [one.verdict.value for one in found.proofs] == ["NOT HELD", "HELD"]


class Holding(torch.optim.SGD):
    """Keeps what cannot be copied."""

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        super().step()
        for group in self.param_groups:
            for one in group["params"]:
                self.state[one]["held"] = (each for each in ())


def test_an_optimizer_whose_state_cannot_be_copied_is_noted_and_ends_nothing() -> None:
    work = job(optimizer=lambda parameters: Holding(parameters, 0.1))

    found = vv.parity(work, Plan((GradientAccumulation(2),)))

    assert found.verdict is QualityVerdict.HELD
    assert any(note.startswith("updates in a row cannot be compared: TypeError") for note in found.notes)
