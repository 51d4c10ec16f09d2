"""Gradients that jump where a ReLU is tied: what only rounds holds, and what is wrong is caught beside it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from vivace.core.training.job import Training
from vivace.core.training.parity import Kind
from vivace.core.training.rig import Rig
from vivace.testing.tiny_training import CLASSES, Points, image_job, job
from vivace.training import examine as examining
from vivace.training.examine import Examined, examine
from vivace.training.moved import Moved
from vivace.training.rig import assemble
from vivace.training.trace import trace

WIDTH, UNITS, SAMPLES = 64, 16, 32
ROUNDOFF = 2.0**-24


def tied() -> nn.Module:
    """A perceptron whose units are all tied at the first sample: their sums are two roundings above zero."""
    first = nn.Linear(WIDTH, UNITS)
    sample, _ = Points(SAMPLES, (WIDTH,))[0]
    with torch.no_grad():
        terms = first.weight.double() * sample.double()
        first.bias.copy_(2 * ROUNDOFF * terms.abs().sum(1) - terms.sum(1))
    return nn.Sequential(first, nn.ReLU(), nn.Linear(UNITS, CLASSES))


def tied_job() -> Training:
    def plain(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, 0.1)

    return job(model=tied, data=Points(SAMPLES, (WIDTH,)), batch_size=SAMPLES, optimizer=plain)


def reordered(rig: Rig) -> Rig:
    """The same step, in which every eighth unit's sum comes out four roundings lower, as in another order."""

    def forward(batch: Any) -> torch.Tensor:
        points, labels = batch
        first, _, last = rig.model.children()
        lower = 4 * ROUNDOFF * (points.abs() @ first.weight.detach().abs().T)
        lower[:, torch.arange(UNITS) % 8 > 0] = 0
        return functional.cross_entropy(last((first(points) - lower).relu()), labels)

    return rig.replace(forward=forward)


def scaled(rig: Rig) -> Rig:
    """A thousandth too much of everything, and sums as in another order."""
    inner = reordered(rig).forward
    return rig.replace(forward=lambda batch: 1.001 * inner(batch))


def refused(found: Examined) -> set[tuple[Kind, str]]:
    return {(one.kind, one.name) for one in found.agreements if not one.holds}


def test_a_step_that_sums_in_another_order_holds_where_a_unit_is_tied() -> None:
    found = examine(tied_job(), reordered)

    first = next(one for one in found.agreements if (one.kind, one.name) == (Kind.GRADIENT, "0.weight"))
    assert first.error > 1e-3, "no unit flipped: this shows nothing"
    assert refused(found) == set()
    assert any("its longest sum (over 256 values: 1e-06 of themselves)" in note for note in found.notes)


def test_without_moved_weights_it_would_be_called_wrong(monkeypatch: Any) -> None:
    monkeypatch.setattr(Moved, "traces", lambda *_: [])

    assert (Kind.GRADIENT, "0.weight") in refused(examine(tied_job(), reordered))


def test_a_thousandth_too_much_is_caught_beside_a_tie() -> None:
    assert {(Kind.GRADIENT, "2.weight"), (Kind.GRADIENT, "2.bias")} <= refused(examine(tied_job(), scaled))


def test_a_plan_that_holds_is_not_compared_with_moved_weights(monkeypatch: Any) -> None:
    monkeypatch.setattr(examining, "Moved", None)

    found = examine(job(), lambda rig: rig)

    assert refused(found) == set()
    assert not any("longest sum" in note for note in found.notes)


def test_the_longest_sum_is_over_all_places_and_samples_that_share_a_weight() -> None:
    work = image_job()
    moved = Moved(assemble(work), still=True, seed=work.seed)
    batch = next(iter(moved._rig.feed.epoch(0)))
    state = {name: value.clone() for name, value in moved._rig.model.state_dict().items()}

    traces = moved.traces(state, batch, 0, trace(assemble(work), batch, 0))

    samples, _, height, width = batch[0].shape
    assert moved.longest_sum == samples * height * width
    gradients = [one.gradients["0.weight"] for one in traces]
    apart = float((gradients[0] - gradients[1]).norm() / gradients[0].norm())  # type: ignore[operator, union-attr]
    assert 1e-8 < apart < 1e-2


class Counting(nn.Module):
    """Its answers grow with every call, which no copy of its state tells."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(12, CLASSES), 0

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.layer(points) * (1 + self.calls / 10)


def test_what_changes_by_itself_is_not_taken_for_rounding() -> None:
    found = examine(job(model=Counting), lambda rig: rig.replace(forward=lambda batch: 1.05 * rig.forward(batch)))

    assert (Kind.GRADIENT, "layer.weight") in refused(found)
    assert any("another one when it is taken again" in note for note in found.notes)


def test_an_optimizer_that_keeps_a_state_of_its_own_is_not_taken_for_rounding() -> None:
    class Growing(torch.optim.SGD):
        steps = 0

        def step(self, closure: Any = None) -> Any:
            self.steps += 1
            for group in self.param_groups:
                group["lr"] = 0.1 * (1 + self.steps / 100)
            return super().step(closure)

    given = job(optimizer=lambda parameters: Growing(parameters, 0.1))

    def slower(rig: Rig) -> Rig:
        def update() -> None:
            before = [weight.detach().clone() for weight in rig.model.parameters()]
            rig.optimizer.step()
            with torch.no_grad():
                for weight, old in zip(rig.model.parameters(), before, strict=True):
                    weight.lerp_(old, 0.02)

        return rig.replace(update=update)

    assert (Kind.UPDATE, "3.weight") in refused(examine(given, slower))


def test_an_optimizer_that_cannot_go_back_is_a_note_and_no_failure() -> None:
    class Stubborn(torch.optim.SGD):
        def load_state_dict(self, state_dict: Any) -> None:
            raise ValueError("not this one")

    given = job(optimizer=lambda parameters: Stubborn(parameters, 0.1))

    found = examine(given, lambda rig: rig.replace(forward=lambda batch: 1.05 * rig.forward(batch)))

    assert (Kind.GRADIENT, "3.weight") in refused(found)
    assert any("could not be compared: ValueError: not this one" in note for note in found.notes)


def test_a_weight_with_two_names_is_moved_under_both() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(12, 12)
            self.second, self.last = self.first, nn.Linear(12, CLASSES)

        def forward(self, points: torch.Tensor) -> torch.Tensor:
            return self.last(self.second(self.first(points).relu()))

    moved = Moved(assemble(job(model=Tied)), still=True, seed=0)
    state = {name: value.clone() for name, value in moved._rig.model.state_dict().items()}

    elsewhere = moved._elsewhere(state)

    assert torch.equal(elsewhere["first.weight"], elsewhere["second.weight"])
    assert not torch.equal(elsewhere["first.weight"], state["first.weight"])
