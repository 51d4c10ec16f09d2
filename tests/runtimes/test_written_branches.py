"""Branches of a written network, each by one thread: the same answers, fewer waits; a chain has none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from vivace.codegen.statements import BARRIER
from vivace.core.errors import ArtifactError
from vivace.core.facts import Fact
from vivace.core.program import Form, Model
from vivace.devices import machine
from vivace.runtimes.capture import capture
from vivace.runtimes.graphs.counts import facts_of, work_of
from vivace.runtimes.lanes.branches import branches, told
from vivace.runtimes.native import session

needs_compiler = pytest.mark.skipif(not machine.detect().cxx_compiler, reason="there is no C++ compiler")
needs_threads = pytest.mark.skipif(machine.detect().cores_allowed < 2, reason="one core is allowed")


class Towers(nn.Module):
    """Two recurrences that meet in a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.GRU(8, 16, batch_first=True), nn.LSTM(8, 16, batch_first=True)
        self.head = nn.Sequential(nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        met = torch.cat([self.users(users)[0][:, -1], self.items(items)[0][:, -1]], 1)
        return self.head(met)


class TwoWays(nn.Module):
    """A recurrence in both directions, of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.LSTM(8, 16, 2, batch_first=True, bidirectional=True)

    def forward(self, steps: Tensor) -> Tensor:
        return self.both(steps)[0]


class Summed(nn.Module):
    """Perceptrons whose answers are added one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.members = nn.ModuleList(nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        return sum((member(x) for member in self.members), torch.zeros(4))


class Inception(nn.Module):
    """Convolutions side by side, joined, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.ModuleList(nn.Conv2d(8, 4, 3, padding=1) for _ in range(2)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = torch.cat([torch.relu(one(x)) for one in block], 1)
        return x.mean((2, 3))


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...]]] = {
    "towers": (Towers, (torch.randn(2, 7, 8), torch.randn(2, 5, 8))),
    "two ways": (TwoWays, (torch.randn(2, 6, 8),)),
    "summed": (Summed, (torch.randn(3, 8),)),
    "inception": (Inception, (torch.randn(1, 8, 6, 6),)),
}


def written(model: Model, threads: int, lanes: str) -> Model:
    settings = model.settings.replace(threads=threads).with_options(**{session.BRANCHES: lanes} if lanes else {})
    return model.replace(form=Form.NATIVE, settings=settings)


def lanes_of(model: Model, inputs: tuple[Tensor, ...]) -> str:
    found = told(model.program, {name: one.flops for name, one in work_of(model, list(inputs)).items()}, 2)
    assert found
    return found


def text_of(model: Model, inputs: tuple[Tensor, ...]) -> str:
    """What threads do in a call, without where they wait between statements."""
    return "\n".join(one.text for one in session.written(model, list(inputs))[0].statements)


@needs_compiler
@needs_threads
@pytest.mark.parametrize("name", CASES)
def test_branches_apart_answer_as_the_network_does(name: str) -> None:
    make, inputs = CASES[name]
    network = make().eval()
    model = capture(network, inputs).model

    program = session.load(written(model, 2, lanes_of(model, inputs)))

    with torch.no_grad():
        for _ in range(20):  # threads that do not wait where they must would answer wrongly now and then
            torch.testing.assert_close(program(*inputs), network(*inputs), rtol=1e-4, atol=1e-5)


@needs_threads
@pytest.mark.parametrize("name", ["towers", "two ways"])
def test_threads_with_a_recurrence_each_do_not_wait_in_its_steps(name: str) -> None:
    make, inputs = CASES[name]
    model = capture(make().eval(), inputs).model

    assert BARRIER not in text_of(written(model, 2, lanes_of(model, inputs)), inputs)
    assert BARRIER in text_of(written(model, 2, ""), inputs)


def test_networks_side_by_side_have_branches_and_chains_have_none() -> None:
    chain = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)).eval()
    attention = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()

    def has(network: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
        return Fact.HAS_BRANCHES in facts_of(capture(network, inputs).model)

    assert all(has(make().eval(), inputs) for make, inputs in CASES.values())
    assert not has(chain, (torch.randn(4, 8),))
    assert not has(attention, (torch.randn(1, 4, 16),))


def test_the_largest_branch_goes_first_and_uneven_ones_stay_shared() -> None:
    needs = [[], [0], [0], [0], [1, 2, 3]]

    assert branches([1, 6, 3, 3, 1], needs, 2) == [None, 0, 1, 1, None]
    assert branches([1, 9, 1, 1, 1], needs, 2) == [None] * 5


def test_what_is_between_two_narrow_places_is_divided_by_itself() -> None:
    needs = [[], [], [0, 1], [2], [2], [3, 4]]

    assert branches([2, 2, 1, 3, 3, 1], needs, 2) == [0, 1, None, 0, 1, None]


@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=needs_threads)])
@pytest.mark.parametrize("lanes", ["01", "x" * 8, "0" * 400])
def test_branches_that_do_not_fit_the_graph_are_refused(lanes: str, threads: int) -> None:
    make, inputs = CASES["summed"]
    model = capture(make().eval(), inputs).model

    with pytest.raises(ArtifactError, match="allowed is a digit from 0 to 8, or -, for each"):
        session.written(written(model, threads, lanes), list(inputs))
