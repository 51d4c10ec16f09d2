"""What trades time for memory in a training, or narrows its numbers: the same gradients, and less at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vivace.core.errors import NotApplicable, UsageError
from vivace.core.facts import OF_THE_MACHINE
from vivace.core.plan import Plan
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.search.training.choose import START
from vivace.techniques.compile.compiled_training import CompiledTraining
from vivace.techniques.compile.recorded_step import RecordedStep
from vivace.techniques.memory import fitting_micro_batch
from vivace.techniques.memory.activation_checkpointing import ActivationCheckpointing
from vivace.techniques.memory.cuda_memory import CudaMemory
from vivace.techniques.memory.fitting_micro_batch import FittingMicroBatch
from vivace.techniques.memory.foreach_optimizer import ForeachOptimizer
from vivace.techniques.memory.fused_optimizer import FusedOptimizer
from vivace.techniques.memory.gradient_accumulation import GradientAccumulation
from vivace.techniques.memory.narrow_optimizer_state import NarrowOptimizerState, rounded_by_chance
from vivace.techniques.parallel import spread
from vivace.techniques.precision.float16 import Float16
from vivace.techniques.precision.tf32 import Tf32
from vivace.testing import training_contract
from vivace.testing.tiny_training import image_job, job
from vivace.training.loop import Loop
from vivace.training.peak import peak_bytes
from vivace.training.rig import assemble
from vivace.training.service import equip
from vivace.training.step import accumulate

EVERYTHING = START | OF_THE_MACHINE


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.back, self.drop = nn.Linear(12, 96), nn.Linear(96, 12), nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.drop(self.back(nn.functional.gelu(self.wide(x)).sigmoid()))


def deep() -> nn.Module:
    return nn.Sequential(nn.Sequential(*(Block() for _ in range(6))), nn.Linear(12, 4))


def rig_with(*techniques: Any, **changes: Any) -> Rig:
    work = job(**changes)
    return equip(assemble(work), work, Plan(techniques))


def step_bytes(rig: Rig) -> int:
    batch = next(iter(rig.feed.epoch(0)))
    rig.optimizer.zero_grad()
    return peak_bytes(lambda: accumulate(rig, batch))


def test_blocks_that_are_computed_again_need_less_at_once_and_give_the_same_gradients() -> None:
    changes: dict[str, Any] = {"model": deep, "batch_size": 64}
    whole, selective = ActivationCheckpointing(), ActivationCheckpointing("products")

    plain, least, less = (step_bytes(rig_with(*plan, **changes)) for plan in ((), (whole,), (selective,)))

    assert least < less < plain
    assert least < 0.6 * plain
    assert training_contract.check_trains(whole, job(model=deep)) == ""
    assert training_contract.check_trains(selective, job(model=deep)) == ""


def test_blocks_with_batch_normalization_and_models_without_blocks_are_refused() -> None:
    def normalized() -> nn.Module:
        return nn.Sequential(nn.Sequential(nn.Linear(12, 12), nn.BatchNorm1d(12)), nn.Linear(12, 4))

    with pytest.raises(NotApplicable, match="count every batch twice"):
        rig_with(ActivationCheckpointing(), model=normalized)
    with pytest.raises(NotApplicable, match="no list of blocks"):
        rig_with(ActivationCheckpointing())


def test_a_micro_batch_is_the_largest_that_was_seen_to_fit() -> None:
    changes: dict[str, Any] = {"model": deep, "batch_size": 64}
    limit = 0.5 * step_bytes(rig_with(**changes))

    rig = rig_with(FittingMicroBatch(limit / 1e9), **changes)
    coarser = rig.replace(parts=rig.parts // 2)

    assert rig.parts > 1
    assert step_bytes(rig) <= limit < step_bytes(coarser)


def test_a_micro_batch_leaves_weights_buffers_and_generators_alone() -> None:
    work = job(model=deep)
    rig, before = assemble(work), torch.get_rng_state()
    weights = {name: value.clone() for name, value in rig.model.state_dict().items()}

    FittingMicroBatch(8e-5).equip(rig, work)

    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, weights[name]) for name, value in rig.model.state_dict().items())
    assert all(parameter.grad is None for parameter in rig.model.parameters())


@pytest.mark.parametrize(("gigabytes", "told"), [(1.0, "the whole batch fits"), (1e-9, "one sample takes")])
def test_a_micro_batch_that_is_not_needed_or_does_not_help_is_told(gigabytes: float, told: str) -> None:
    with pytest.raises(NotApplicable, match=told):
        rig_with(FittingMicroBatch(gigabytes))


def test_narrow_moments_take_half_the_memory_and_train_on() -> None:
    work = job(epochs=6)
    rig = equip(assemble(work), work, Plan((NarrowOptimizerState(),)))
    loop = Loop(work, rig, None, "")
    found = [loop.advance(100) for _ in range(6)]

    moments = [state["exp_avg_sq"] for state in rig.optimizer.state.values()]
    assert {moment.dtype for moment in moments} == {torch.bfloat16}
    assert found[-1].losses[-2] < 0.5 * found[0].losses[0]


def test_rounding_by_chance_is_right_on_average_where_the_nearest_never_moves() -> None:
    torch.manual_seed(0)
    value = torch.full((20_000,), 1.001)

    rounded = rounded_by_chance(value)

    assert rounded.dtype == torch.bfloat16
    assert float(rounded.float().mean()) == pytest.approx(1.001, abs=2e-4)
    assert float(value.to(torch.bfloat16).float().mean()) == 1.0
    assert rounded_by_chance(torch.tensor([float("nan"), float("inf")])).tolist()[1] == float("inf")


def test_lists_update_as_single_tensors_do() -> None:
    assert training_contract.check_trains(ForeachOptimizer(), job()) == ""
    with pytest.raises(NotApplicable, match="already"):
        rig_with(ForeachOptimizer(), optimizer=lambda p: torch.optim.Adam(p, fused=True))


def exploding(model: nn.Module, batch: Any) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1]) * 300


def test_scaled_steps_that_overflow_are_left_out_and_counted_until_the_scale_fits() -> None:
    work = job(loss=exploding, epochs=3)
    rig = equip(assemble(work), work, Plan((Float16(),)))
    before = [parameter.clone() for parameter in rig.model.parameters()]
    loop = Loop(work, rig, None, "")

    first = loop.advance(1)
    unmoved = all(map(torch.equal, before, rig.model.parameters()))
    rest = loop.advance(100)

    assert first.skipped == 1 and unmoved
    assert 1 <= rest.skipped < rest.position.steps
    assert not all(map(torch.equal, before, rig.model.parameters()))


def test_a_scaled_training_that_is_resumed_goes_on_exactly(tmp_path: Path) -> None:
    def loop_of(keep: Path | None) -> Loop:
        work = job(loss=exploding)
        return Loop(work, equip(assemble(work), work, Plan((Float16(),))), keep, "same")

    whole = loop_of(None)
    wanted = whole.advance(5).losses + whole.advance(2).losses
    first = loop_of(tmp_path)
    before = first.advance(5)
    first.save()
    second = loop_of(tmp_path)
    second.resume()
    after = second.advance(2)

    assert before.losses + after.losses == wanted
    assert after.skipped == before.skipped > 0
    assert second.rig.scaling is not None and first.rig.scaling is not None
    assert second.rig.scaling.state()["scale"] == first.rig.scaling.state()["scale"]


@pytest.mark.parametrize("technique", [Tf32(), CudaMemory()], ids=str)
def test_what_needs_a_card_says_so_on_a_processor(technique: Any) -> None:
    with pytest.raises(NotApplicable, match="not on a CUDA device"):
        rig_with(technique)


@pytest.mark.parametrize(
    "share",
    [0.0, 1.5, True],
)
def test_a_share_of_a_card_is_above_zero_and_at_most_one(share: float) -> None:
    with pytest.raises(UsageError, match="allowed is a number above 0"):
        CudaMemory(share=share)


CONFLICTS = [
    ((Float16(), RecordedStep()), "a loss that is not scaled"),
    ((GradientAccumulation(2), RecordedStep()), "computed as a whole"),
    ((FittingMicroBatch(), GradientAccumulation(2)), "computed as a whole"),
    ((ForeachOptimizer(), FusedOptimizer()), "kernels were not chosen"),
    ((CompiledTraining(), RecordedStep()), "no compiler has taken over"),
]


@pytest.mark.parametrize(("techniques", "told"), CONFLICTS, ids=lambda value: str(value)[:40])
def test_conflicts_are_told_by_facts(techniques: Any, told: str) -> None:
    reason = Plan(techniques).illegal(EVERYTHING)

    assert reason is not None and told in reason


@pytest.mark.parametrize("first", [Float16(), Tf32(), GradientAccumulation(2)], ids=str)
def test_a_training_needs_no_program_that_something_runs(first: Any) -> None:
    assert Plan((first, FusedOptimizer())).illegal(EVERYTHING) is None


def test_a_step_in_parts_or_scaled_is_not_compiled_as_one_graph() -> None:
    for other in (GradientAccumulation(2), Float16()):
        with pytest.raises(NotApplicable, match="no single graph"):
            rig_with(other, CompiledTraining("step"))


def test_batch_normalization_is_not_mixed_over_parts() -> None:
    work = image_job()
    with pytest.raises(NotApplicable, match="normalizes over the batch"):
        FittingMicroBatch(1e-9).equip(assemble(work), work)


class Walked:
    """Batches that count how often they were begun, as a DataLoader would draw and start workers each time."""

    def __init__(self) -> None:
        self.begun = 0

    def __iter__(self) -> Iterator[Any]:
        self.begun += 1
        return iter([(torch.randn(4, 12), torch.zeros(4, dtype=torch.long))])


@pytest.mark.parametrize(
    "first", [spread.example_of, lambda work: fitting_micro_batch._first_batch(assemble(work), work)]
)
def test_a_first_batch_begins_the_data_once(first: Callable[[Training], Any]) -> None:
    data = Walked()

    first(job(data=data, batch_size=None))

    assert data.begun == 1
