"""Late proofs of steps that cannot be compared draw by draw, or that are meant to be others: faults, and sound runs."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import vivace as vv
from vivace.core.errors import NotApplicable
from vivace.core.plan import Plan
from vivace.core.technique import Effect
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.techniques.compile.native_step import NativeStep
from vivace.techniques.feed.sample_cache import SampleCache
from vivace.techniques.memory.narrow_optimizer_state import NarrowOptimizerState
from vivace.testing import planted_training as planted
from vivace.testing.tiny_training import image_job, job, momentum
from vivace.training.loop import Loop
from vivace.training.native.as_drawn import AsDrawn
from vivace.training.proof.later import proved_again
from vivace.training.proof.together import Unproved
from vivace.training.rig import assemble
from vivace.training.service import equip

SEEDS = range(3)


class Own:
    """Gradients of a rig, and no way to tell what it draws; those of the first parameter are `factor` as large."""

    def __init__(self, rig: Rig, factor: float = 1.0) -> None:
        self.rig, self.factor = rig, factor

    def __call__(self, batch: Any) -> torch.Tensor:
        assert self.rig.gradients is not None
        loss = self.rig.gradients(batch)
        first = next(self.rig.model.parameters())
        if self.factor != 1.0 and first.grad is not None:
            first.grad = first.grad * self.factor
        return loss


def verdict(work: Training, plan: Plan, loop: Loop, first: dict[str, float] | None = None) -> str:
    try:
        found = proved_again(work, plan, loop, {}, first, lambda: equip(assemble(work), work, plan))
    except Unproved as why:
        return str(why)
    return next((str(one) for one in found.agreements if not one.holds), "HELD")


def trained(work: Training, plan: Plan, steps: int, change: Callable[[Rig], Rig] = lambda rig: rig) -> Loop:
    loop = Loop(work, change(equip(assemble(work), work, plan)), None, "")
    while loop.position.steps < steps or loop.position.batch == 0:
        loop.advance(1)
    return loop


COMPILED = Plan((SampleCache(), NativeStep()))


@pytest.mark.slow
def test_a_compiled_step_with_dropout_is_compared_with_its_own_masks() -> None:
    for seed in SEEDS:
        work = job(seed=seed, epochs=40, evaluate=None)
        loop = trained(work, COMPILED, 150)

        found = proved_again(work, COMPILED, loop, {})

        assert all(one.holds for one in found.agreements) and found.reference == "float64"
        assert max(one.allowed for one in found.agreements) < 1e-2, "a comparison draw by draw"
        loop.rig = loop.rig.replace(gradients=Scaled(loop.rig.gradients), several=None)
        loop.advance(2)
        assert "gradient of 0.weight" in verdict(work, COMPILED, loop)


class Scaled(Own):
    """The same, of a step that tells what it draws."""

    def __init__(self, step: Any) -> None:
        self.step = step

    def __call__(self, batch: Any) -> torch.Tensor:
        loss: torch.Tensor = self.step(batch)
        self.step._parameters[0].grad.mul_(1.01)
        return loss

    def masks(self) -> Any:
        return self.step.masks()


def test_what_the_original_draws_beside_is_what_the_code_draws_as_often_as_it_does() -> None:
    torch.manual_seed(3)
    with AsDrawn(2):
        one, other = torch.nn.functional.dropout(torch.ones(10_000), 0.25), torch.rand(10_000)

    assert float((one == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert float(other.mean()) == pytest.approx(0.5, abs=0.02) and float(other.max()) < 1
    with pytest.raises(NotApplicable, match="draws 0 times in a step, and its code 1 times"), AsDrawn(1):
        torch.zeros(3)


@pytest.mark.slow
def test_gradients_over_many_draws_hold_where_all_is_right_and_do_not_where_they_are_doubled() -> None:
    def unseen(rig: Rig) -> Rig:
        return rig.replace(gradients=Own(rig), several=None)

    right, wrong = Counter[str](), Counter[str]()
    for seed in SEEDS:
        work = job(seed=seed, epochs=40, evaluate=None)
        for steps in (5, 12, 100):
            loop = trained(work, COMPILED, steps, unseen)
            right[verdict(work, COMPILED, loop)[:11]] += 1
            loop.rig.gradients.factor = 2.0  # type: ignore[union-attr]
            wrong[verdict(work, COMPILED, loop)[:11]] += 1

    assert set(right) <= {"HELD", "CANNOT TELL"} and right["HELD"] >= 2 * len(SEEDS)
    assert set(wrong) <= {"gradient of", "update of 0", "CANNOT TELL"} and wrong["CANNOT TELL"] <= len(SEEDS)


@pytest.mark.parametrize(
    "kind", [job, lambda **asked: image_job(optimizer=momentum, **asked)], ids=["adam", "momentum"]
)
def test_narrow_states_hold_late_from_every_seed_and_a_late_fault_beside_them_does_not(kind: Any) -> None:
    for seed in SEEDS:
        work = kind(seed=seed, epochs=40, evaluate=None)
        sound = Plan((NarrowOptimizerState(),))
        assert verdict(work, sound, trained(work, sound, 80)) == "HELD"
        for late in (planted.LateDetachment(layer="0", after=50), planted.StaleGradients(after=50)):
            plan = Plan((NarrowOptimizerState(), late))
            assert "gradient of 0." in verdict(work, plan, trained(work, plan, 80))


@dataclasses.dataclass(frozen=True)
class CoarseGradients(planted.Planted):
    """Gradients of a few bits by design, each rounded to a power of two; from step `after` on to nothing at all."""

    after: int = 10**9

    effect = Effect.CHANGED

    def equip(self, rig: Rig, job: Training) -> Rig:
        update, steps = rig.update, itertools.count()

        def coarse() -> Any:
            late = next(steps) >= self.after
            for parameter in rig.model.parameters():
                if parameter.grad is not None:
                    size, power = torch.frexp(parameter.grad)
                    parameter.grad.copy_(torch.ldexp(size.sign() * 0.75, power) * (0.0 if late else 1.0))
            return update()

        return rig.replace(update=coarse)


def test_a_plan_that_changes_gradients_by_design_may_do_so_as_far_as_at_the_start() -> None:
    for seed in SEEDS:
        work = job(seed=seed, epochs=40, evaluate=None)
        sound = Plan((CoarseGradients(),))
        first = {f"gradient of {name}.{one}": 0.5 for name in "03" for one in ("weight", "bias")}
        first |= {key.replace("gradient", "update"): 0.5 for key in first}
        loop = trained(work, sound, 80)

        assert verdict(work, sound, loop, first) == "HELD"
        assert verdict(work, sound, loop, {}).startswith("CANNOT TELL, as the plan changes the computation by design: ")
        faulty = Plan((CoarseGradients(after=60),))
        assert "relative error 1 where" in verdict(work, faulty, trained(work, faulty, 80), first)


def test_a_late_fault_in_a_plan_that_changes_the_computation_is_taken_out_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vivace.api.running.proofs.SHARE", 1e9)
    monkeypatch.setattr("vivace.api.running.drive.SAVING_SHARE", -1.0)
    monkeypatch.setattr("vivace.api.running.drive.CHECKPOINT_SECONDS", 1e9)  # so that the end alone is proved
    late = planted.LateDetachment(layer="0", after=200)  # of 420 steps

    found = vv.train(job(epochs=60, evaluate=None), plan=Plan((late, NarrowOptimizerState())), out=tmp_path)

    assert [one.verdict.value for one in found.proofs] == ["NOT HELD", "NOT HELD", "HELD"]
    assert str(found.plan) == "narrow-optimizer-state"
    assert f"{late} was taken out" in found.dropped[-1]
