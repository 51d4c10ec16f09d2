"""Compiled steps: the gradients and updates of autograd and the optimizer, many in one call, and what they refuse."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from native_loops import ALONE, CACHED, finish, loop_of, same, weights
from phased import Phased, in_the_next_phase
from torch import nn
from torch.nn import functional

from vivace.codegen import lowering
from vivace.codegen.tiles import Vector
from vivace.core.errors import NotApplicable, UsageError
from vivace.core.plan import Plan
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.devices import machine
from vivace.runtimes.settings.around import threads as threads_inside
from vivace.techniques.compile.native_step import NativeStep
from vivace.techniques.feed.sample_cache import SampleCache
from vivace.techniques.memory.fused_optimizer import FusedOptimizer
from vivace.techniques.precision.bfloat16 import Bfloat16
from vivace.testing.planted_training import DetachedBranch, DroppedScale, ForgottenParameter
from vivace.testing.tiny_training import CLASSES, Points, job, momentum
from vivace.training.examine import examine
from vivace.training.native import tables
from vivace.training.native.compiled import compiled
from vivace.training.native.step import NativeTraining
from vivace.training.rig import assemble
from vivace.training.service import equip, open_step

HERE = machine.detect()
pytestmark = pytest.mark.skipif(not HERE.cxx_compiler, reason="compiled steps need a C++ compiler: install g++")
NARROW = Plan.of([SampleCache(), Bfloat16(), NativeStep()])


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, CLASSES))


def work(**changes: Any) -> Training:
    return job(**{"model": perceptron, **changes})


def trained(given: Training, plan: Plan, pieces: tuple[int, ...]) -> dict[str, torch.Tensor]:
    loop = loop_of(given, plan)
    for steps in pieces:
        loop.advance(steps)
    return weights(loop)


class Normalized(nn.Module):
    """Widths that fit no vector, and what is neither linear nor a rectifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(12, 37), nn.LayerNorm(37), nn.Linear(37, 19)
        self.last, self.scale = nn.Linear(19, CLASSES, bias=False), nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.gelu(self.norm(self.first(x)))
        found: torch.Tensor = self.last(torch.tanh(self.second(x)) * torch.sigmoid(self.scale)) * 2.0
        return found


def squares(model: nn.Module, batch: Any) -> torch.Tensor:
    points, labels = batch
    wanted = functional.one_hot(labels, CLASSES).float()
    return functional.mse_loss(torch.softmax(model(points), 1), wanted) + 1e-3 * model(points).pow(2).mean()


OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "adam": lambda p: torch.optim.Adam(p, 1e-2, weight_decay=1e-3),
    "amsgrad": lambda p: torch.optim.Adam(p, 1e-2, amsgrad=True, maximize=False),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-2),
    "sgd": lambda p: torch.optim.SGD(p, 1e-2),
    "momentum": momentum,
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-3, weight_decay=1e-3),
    "centered": lambda p: torch.optim.RMSprop(p, 1e-3, momentum=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 1e-2, weight_decay=1e-3, initial_accumulator_value=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9, nesterov=True),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_a_compiled_step_makes_the_gradients_and_updates_of_the_original(optimizer: Callable[..., Any]) -> None:
    given = work(optimizer=optimizer)

    found = examine(given, lambda rig: equip(rig, given, CACHED), steps=6)

    assert [str(one) for one in found.agreements if not one.holds] == []
    assert {one.name for one in found.agreements} >= {"0.weight", "2.bias", "0.weight after 6 steps in one go"}


@pytest.mark.parametrize("loss", [None, squares], ids=["cross entropy", "squares"])
def test_odd_sizes_norms_and_smooth_functions_are_written_out_too(loss: Any) -> None:
    given = work(model=Normalized, **({"loss": loss} if loss else {}))

    found = examine(given, lambda rig: equip(rig, given, CACHED), steps=6)

    assert [str(one) for one in found.agreements if not one.holds] == []


@pytest.mark.parametrize(("lanes", "threads"), [(4, 1), (4, 3), (8, 2), (8, 4)])
def test_other_vectors_and_counts_of_threads_make_the_same_step(lanes: int, threads: int) -> None:
    given = work(model=Normalized)

    def narrower(rig: Rig) -> Rig:
        build = functools.partial(compiled, compiler=HERE.cxx_compiler, flags=("-march=native",))
        step = NativeTraining(rig, given.batch_size, Vector(lanes, 16), threads, build)
        return rig.replace(gradients=step, update=step.updated)

    with threads_inside(threads):
        found = examine(given, narrower)

    assert [str(one) for one in found.agreements if not one.holds] == []


class Codes(torch.utils.data.Dataset[Any]):
    """Rows of nine codes."""

    def __init__(self) -> None:
        self.codes = torch.randint(11, (60, 9), generator=torch.Generator().manual_seed(3))

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.codes[index]


class Attending(nn.Module):
    """Attention to the codes before, by whole numbers of the model's, with a table that is the last layer too."""

    def __init__(self, mask: str = "") -> None:
        super().__init__()
        self.codes, self.places = nn.Embedding(11, 20, padding_idx=4), nn.Embedding(9, 20)
        self.inward, self.outward, self.norm = nn.Linear(20, 60), nn.Linear(20, 20), nn.LayerNorm(20)
        self.last = nn.Linear(20, 11, bias=False)
        self.last.weight = self.codes.weight
        self.register_buffer("order", torch.arange(9), persistent=False)
        self.mask = mask

    order: torch.Tensor

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        x = self.codes(codes) + self.places(self.order) + (self.order / 32)[:, None]
        query, key, value = self.inward(self.norm(x)).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        mask = None
        if self.mask == "far":
            mask = -0.1 * (self.order - self.order[:, None]).abs().float()
        elif self.mask == "blind":  # the third code sees nothing, the others none of the first two
            mask = ((self.order != 2)[:, None] & (self.order > 1))[None, None]
        seen = functional.scaled_dot_product_attention(query, key, value, mask, is_causal=mask is None)
        scores: torch.Tensor = self.last(x + self.outward(seen.transpose(1, 2).flatten(2)))
        return scores


def following(model: nn.Module, codes: torch.Tensor) -> torch.Tensor:
    """The loss of each code but the first, by those before it."""
    return functional.cross_entropy(model(codes)[:, :-1].flatten(0, 1), codes[:, 1:].flatten())


@pytest.mark.parametrize("mask", ["", "far", "blind"], ids=["causal", "far", "blind"])
@pytest.mark.parametrize("precision", [None, Bfloat16], ids=["float32", "bfloat16"])
def test_attention_and_tables_of_codes_are_written_out_too(precision: Any, mask: str) -> None:
    given = work(model=functools.partial(Attending, mask), data=Codes(), loss=following, evaluate=None)
    plan = Plan.of([SampleCache(), *([precision()] if precision else []), NativeStep()])

    rounding = {"unit_roundoff": precision.unit_roundoff} if precision else {}

    found = examine(given, lambda rig: equip(rig, given, plan), steps=6, **rounding)

    assert [str(one) for one in found.agreements if not one.holds] == []
    assert {one.name for one in found.agreements} >= {"codes.weight", "places.weight", "inward.weight", "norm.bias"}
    assert all(torch.isfinite(torch.tensor(one.error)) for one in found.agreements)


class Counting(nn.Module):
    """Products of whole numbers, on the way to the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(11))

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        counts = functional.one_hot(codes, 11)
        return (counts @ counts.transpose(1, 2) @ counts).float() * self.scale


def test_products_of_whole_numbers_are_refused() -> None:
    with pytest.raises(NotApplicable, match=r"whole numbers|no C for"):
        loop_of(work(model=Counting, data=Codes(), loss=following, evaluate=None), CACHED).advance(1)


class Sharing(nn.Module):
    """Two parameters in one memory."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, CLASSES), nn.Linear(12, CLASSES)
        self.second.weight = nn.Parameter(self.first.weight.data)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.first(x) + self.second(x)
        return found


def test_parameters_that_share_their_memory_are_refused() -> None:
    with pytest.raises(NotApplicable, match="same memory"):
        loop_of(work(model=Sharing), CACHED).advance(1)


class Dropping(Attending):
    """Attention that drops shares."""

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        x = self.codes(codes)[:, None]
        found: torch.Tensor = self.last(functional.scaled_dot_product_attention(x, x, x, dropout_p=0.3)[:, 0])
        return found


def test_attention_that_drops_shares_learns_as_the_original_does() -> None:
    given = work(model=Dropping, data=Codes(), loss=following, evaluate=None, epochs=12)
    ends = []
    for plan in (Plan(), CACHED):
        losses = finish(loop_of(given, plan))
        ends.append(sum(losses[-10:]) / 10)
        assert ends[-1] < 0.9 * sum(losses[:5]) / 5

    assert ends[1] == pytest.approx(ends[0], rel=0.1)


@pytest.mark.skipif("avx512_bf16" not in HERE.instructions, reason="products of bfloat16 need avx512_bf16")
def test_products_in_bfloat16_stay_within_what_their_rounding_allows() -> None:
    given = work(model=Normalized)
    plan = Plan.of([SampleCache(), Bfloat16(), NativeStep()])

    found = examine(given, lambda rig: equip(rig, given, plan), unit_roundoff=Bfloat16.unit_roundoff, steps=6)

    assert [str(one) for one in found.agreements if not one.holds] == []
    assert max(one.error for one in found.agreements) > 1e-4


@pytest.mark.parametrize("plan", [CACHED, NARROW], ids=str)
def test_a_training_is_the_same_to_the_bit_however_many_steps_are_taken_at_a_time(plan: Plan) -> None:
    at_once = trained(work(), plan, (100, 100, 100))
    in_pieces = trained(work(), plan, (1, 2, 100, 3, 1, 1, 1, 1, 100, 5, 100))

    assert same(at_once, in_pieces)


@pytest.mark.parametrize("plan", [CACHED, NARROW], ids=str)
def test_the_gradients_that_many_steps_at_once_leave_are_those_of_the_last_one(plan: Plan) -> None:
    def left(pieces: tuple[int, ...]) -> list[torch.Tensor]:
        loop = loop_of(work(), plan)
        for steps in pieces:
            loop.advance(steps)
        return [torch.as_tensor(parameter.grad).clone() for parameter in loop.rig.model.parameters()]

    one_by_one = left((1,) * 7)

    assert all(map(torch.equal, left((1, 6)), one_by_one))
    assert not any(map(torch.equal, left((1, 5)), one_by_one))


def test_batches_of_a_table_that_was_rounded_are_those_that_are_rounded_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    of_rounded = trained(work(), NARROW, (100, 100))
    monkeypatch.setattr(tables, "MOST_BYTES", 0)
    of_wide = trained(work(), NARROW, (100, 100))
    monkeypatch.setattr(NativeTraining, "several", lambda *_: None)
    one_by_one = trained(work(), NARROW, (100, 100))

    assert same(of_rounded, of_wide)
    assert same(of_rounded, one_by_one)


def test_weights_that_somebody_changes_between_steps_are_the_ones_that_are_used() -> None:
    points = Points(16)
    loop = loop_of(work(data=points, batch_size=16, epochs=9), NARROW)
    for _ in range(3):
        loop.advance(1)
    with torch.no_grad():
        for weight in loop.rig.model.parameters():
            weight.mul_(-2)
        expected = functional.cross_entropy(loop.rig.model(points.points), points.labels)

    losses = [value for _ in range(2) for value in loop.advance(1).losses]

    assert losses[0] == pytest.approx(float(expected), rel=0.02)


class Folded(nn.Module):
    """Parameters that products see in other shapes than the optimizer does: more rows, one row, one number."""

    def __init__(self) -> None:
        super().__init__()
        self.folded = nn.Parameter(0.1 * torch.randn(4, 8, 12))
        self.row = nn.Parameter(0.1 * torch.randn(32))
        self.number = nn.Parameter(torch.tensor(0.5))
        self.last = nn.Linear(32, CLASSES)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        hidden = points @ self.folded.view(32, 12).T
        score = self.row[None] @ hidden.T
        return self.last(hidden) + (self.number.view(1, 1) @ score).T


@pytest.mark.parametrize("plan", [CACHED, NARROW], ids=str)
def test_parameters_that_products_see_in_other_shapes_are_updated_whole(plan: Plan) -> None:
    given = work(model=Folded)
    roundoff = max(one.unit_roundoff for one in plan)

    found = examine(given, lambda rig: equip(rig, given, plan), unit_roundoff=roundoff)
    loop = loop_of(given, plan)
    before = weights(loop)
    loop.advance(3)

    assert [str(one) for one in found.agreements if not one.holds] == []
    assert all(bool((value != before[name]).all()) for name, value in weights(loop).items())


def test_a_batch_of_one_sample_of_which_a_part_is_read_takes_whole_rows() -> None:
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, CLASSES)

        def forward(self, points: torch.Tensor) -> torch.Tensor:
            return self.layer(points[:, :8])

    given = work(model=Part, batch_size=1)
    plain, native = (trained(given, plan, (100, 100)) for plan in (Plan.of([SampleCache(), Bfloat16()]), NARROW))

    for name, value in plain.items():
        torch.testing.assert_close(native[name], value, rtol=0.05, atol=0.02)


def test_a_table_is_rounded_again_when_it_was_written_to() -> None:
    kept, column = tables.RoundedTables(), torch.ones(4)
    (first,) = kept.of([column], [0])
    (again,) = kept.of([column], [0])
    column[0] = 3.0
    (after,) = kept.of([column], [0])

    assert first is again
    assert after is not None and after.tolist() == [3.0, 1.0, 1.0, 1.0]


def test_a_training_with_a_smaller_last_batch_and_a_schedule_ends_where_the_original_does() -> None:
    given = work(schedule=lambda o: torch.optim.lr_scheduler.StepLR(o, 1, 0.5), epochs=3)

    plain, native = (trained(given, plan, (7, 1, 7, 1, 7, 1)) for plan in (Plan(), CACHED))

    for name, value in plain.items():
        torch.testing.assert_close(native[name], value, rtol=1e-4, atol=1e-5)


def test_a_rate_that_changes_every_step_is_used_in_every_step() -> None:
    given = work(schedule=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.8), advance="step")

    plain, native = (trained(given, plan, (6,)) for plan in (Plan(), CACHED))

    for name, value in plain.items():
        torch.testing.assert_close(native[name], value, rtol=1e-4, atol=1e-5)


def test_a_training_goes_on_exactly_from_a_checkpoint_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    given = work(schedule=lambda o: torch.optim.lr_scheduler.StepLR(o, 1, 0.5))
    through = trained(given, CACHED, (100, 100))
    stopped = loop_of(given, CACHED, tmp_path)
    stopped.advance(3)
    stopped.save()
    resumed = loop_of(given, CACHED, tmp_path)

    position = resumed.resume()
    resumed.advance(100)
    resumed.advance(100)

    assert position.batch == 3
    assert same(through, weights(resumed))


def test_the_optimizer_keeps_its_state_and_can_go_on_by_itself() -> None:
    given = work()
    plain, native = loop_of(given, Plan()), loop_of(given, Plan.of([SampleCache(), FusedOptimizer(), NativeStep()]))
    for loop in (plain, native):
        loop.advance(5)

    for own, other in zip(plain.rig.model.parameters(), native.rig.model.parameters(), strict=True):
        mine, theirs = plain.rig.optimizer.state[own], native.rig.optimizer.state[other]
        assert float(theirs["step"]) == float(mine["step"]) == 5
        torch.testing.assert_close(theirs["exp_avg_sq"], mine["exp_avg_sq"], rtol=1e-3, atol=1e-7)


def test_a_parameter_that_is_frozen_later_on_stays_where_it_is() -> None:
    loop = loop_of(work(), CACHED)
    loop.advance(2)
    frozen = loop.rig.model.get_parameter("0.weight").requires_grad_(False)
    before, other = frozen.clone(), loop.rig.model.get_parameter("2.weight").clone()

    loop.advance(3)

    assert torch.equal(frozen, before)
    assert not torch.equal(loop.rig.model.get_parameter("2.weight"), other)


@pytest.mark.parametrize("plan", [CACHED, ALONE])
def test_a_phase_that_an_evaluation_sets_is_seen_and_one_that_changes_nothing_costs_nothing(plan: Plan) -> None:
    work = job(model=Phased, evaluate=in_the_next_phase, epochs=4)
    plain, mine = loop_of(work, Plan()), loop_of(work, plan)

    expected, found = finish(plain), finish(mine)

    assert found == pytest.approx(expected, rel=1e-5)
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(mine)[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_a_step_is_timed_as_the_training_takes_it() -> None:
    step = open_step({}, (work(), CACHED))

    step()
    assert step.many is not None
    step.many(20)

    assert step.steps == 21


@pytest.mark.parametrize(
    ("fault", "named"),
    [(DetachedBranch("0"), "0.weight"), (DroppedScale(), "0.weight")],
    ids=["a detached branch", "a dropped scale"],
)
def test_a_wrong_gradient_is_still_caught_in_a_compiled_step(fault: Any, named: str) -> None:
    given = work()

    found = examine(given, lambda rig: equip(rig, given, Plan.of([fault, NativeStep()])))

    assert any(one.name == named for one in found.agreements if not one.holds)


def test_an_update_that_somebody_has_changed_is_not_replaced() -> None:
    given = work()

    with pytest.raises(NotApplicable, match="takes the place of the optimizer's own update"):
        equip(assemble(given), given, Plan.of([ForgottenParameter("0.bias"), NativeStep()]))


def test_steps_in_one_go_that_are_other_steps_are_caught() -> None:
    given = work()

    def astray(rig: Rig) -> Rig:
        equipped = equip(rig, given, CACHED)
        several = equipped.several
        assert several is not None
        return equipped.replace(several=lambda epoch, first, most: several(epoch, first + 1, most))

    found = examine(given, astray)

    assert "0.weight after 3 steps in one go" in {one.name for one in found.agreements if not one.holds}


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layer(x + 0.1 * torch.randn_like(x))
        return found


def convolving() -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (3, 4)), nn.Conv1d(3, 2, 3, padding=1), nn.Flatten(), nn.Linear(8, CLASSES))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": Noisy}, "draws random numbers"),
        ({"model": convolving}, "no C for the operator aten.convolution"),
        ({"optimizer": lambda p: torch.optim.NAdam(p)}, "NAdam as it is set has no compiled update"),
        ({"optimizer": lambda p: torch.optim.Adagrad(p, lr_decay=0.1)}, "Adagrad as it is set has no compiled"),
    ],
    ids=["random numbers", "an operator", "an optimizer", "a setting"],
)
def test_what_has_no_c_is_refused_with_its_name(changes: dict[str, Any], reason: str) -> None:
    loop = loop_of(work(**changes), CACHED)

    with pytest.raises(NotApplicable, match=reason):
        loop.advance(1)


def test_a_step_whose_arrays_do_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lowering, "MOST_BYTES", 1 << 10)

    with pytest.raises(NotApplicable, match="its arrays would take"):
        loop_of(work(), CACHED).advance(1)


def test_a_class_that_the_model_does_not_have_is_told() -> None:
    points = Points()
    points.labels[70] = CLASSES
    loop = loop_of(work(data=points), CACHED)

    with pytest.raises(UsageError, match="a class or an index that the model does not have"):
        loop.advance(6)
        loop.advance(6)


def test_a_compiler_that_is_not_there_or_fails_is_a_reason() -> None:
    with pytest.raises(NotApplicable, match="cannot be run"):
        compiled("", "no-such-compiler", ())
    with pytest.raises(NotApplicable, match="fails"):
        compiled("this is no C", HERE.cxx_compiler, ())


def test_data_that_are_not_cached_are_trained_on_batch_by_batch() -> None:
    given = work(data=[(Points().points[:16], Points().labels[:16])] * 5, batch_size=None)

    plain, native = (trained(given, plan, (5,)) for plan in (Plan(), Plan((NativeStep(),))))

    for name, value in plain.items():
        torch.testing.assert_close(native[name], value, rtol=1e-4, atol=1e-5)
