"""Branches of a graph on lanes of their own: the schedule, the answers of one lane, and that they work together."""

from __future__ import annotations

import itertools
import random
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vivace.core.errors import ArtifactError
from vivace.core.program import Model
from vivace.runtimes import eager, store
from vivace.runtimes.capture import capture
from vivace.runtimes.lanes import run
from vivace.runtimes.lanes.run import Crew, needs_of, operators_in, operators_of
from vivace.runtimes.lanes.schedule import HANDOVER_SECONDS, pieces, scheduled, staged


class Branches(nn.Module):
    """Three branches that meet twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(8, 8) for _ in range(3))
        self.last = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        one, two = self.first(x).relu(), self.second(x).tanh()
        both = torch.cat([one + self.third(x), two], 1)
        return self.last(both), two.t()


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return capture(Branches().eval(), (torch.randn(4, 8),)).model


def test_independent_work_is_spread_and_a_chain_stays_together() -> None:
    fork = scheduled([1.0, 5.0, 5.0, 1.0], [[], [0], [0], [1, 2]], 2)
    chain = scheduled([1.0] * 5, [[], [0], [1], [2], [3]], 3)

    assert fork.lanes[1] != fork.lanes[2]
    assert fork.seconds == pytest.approx(7.0 + HANDOVER_SECONDS)
    assert (set(chain.lanes), chain.seconds) == ({0}, 5.0)


def test_work_that_is_over_before_a_thread_is_woken_stays_on_one_lane() -> None:
    tiny = HANDOVER_SECONDS / 10

    assert set(scheduled([tiny] * 4, [[], [0], [0], [1, 2]], 2).lanes) == {0}


def test_a_piece_ends_where_another_lane_waits_for_it() -> None:
    lanes, needs = (0, 0, 1, 1, 0, 0), [[], [0], [1], [2], [1], [4, 3]]

    assert pieces(lanes, needs) == [0, 0, 1, 1, 2, 3]


def test_a_chain_is_cut_where_its_longest_stage_is_shortest() -> None:
    generator = random.Random(0)
    for _ in range(30):
        seconds = [generator.choice([0.0, 1.0, 2.0, 5.0]) for _ in range(7)]
        found = staged(seconds, 3)
        every = itertools.combinations_with_replacement(range(8), 2)
        best = min(max(sum(seconds[:a]), sum(seconds[a:b]), sum(seconds[b:])) for a, b in every)

        assert found.seconds == best
        assert list(found.lanes) == sorted(found.lanes) and found.lanes[0] == 0
        sums = [sum(s for s, lane in zip(seconds, found.lanes, strict=True) if lane == one) for one in range(3)]
        assert max(sums) == best


def test_a_lane_takes_the_next_call_while_another_works_on_the_one_before(model: Model) -> None:
    graph = eager.copied_graph(model.program)
    nodes = operators_of(graph)
    crew = Crew(graph, nodes, [0] * 4 + [1] * (len(nodes) - 4), model.program.graph_module, 1)
    values = eager.lifted_values(model.program)
    calls = [torch.randn(4, 8) for _ in range(5)]

    answers = crew.several([[*values, x] for x in calls])

    for x, found in zip(calls, answers, strict=True):
        for one, wanted in zip(found, crew([*values, x]), strict=True):
            assert torch.equal(one, wanted)
    crew.close()


def test_each_lane_holds_its_weights_on_a_device_of_its_own(model: Model) -> None:
    graph = eager.copied_graph(model.program)
    nodes = operators_of(graph)
    lanes = [int("linear" in node.name) for node in nodes]
    devices = [torch.device("cpu"), torch.device("meta")]  # the latter stands for a card: it holds no numbers
    crew = Crew(graph, nodes, lanes, model.program.graph_module, None, devices)
    values = eager.lifted_values(model.program)

    crew.hold(values)

    assert {lane for lane, _ in crew._held} == {1}
    assert [one.device.type for one in crew._held.values()] == ["meta"] * len(values)
    crew.close()


def test_with_a_device_for_each_lane_the_program_itself_goes_to_none(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def placed(*_: object) -> object:
        raise AssertionError("all weights would lie on the first device")

    monkeypatch.setattr(run, "_devices", lambda *_: [torch.device("cpu")] * 2)
    settings = model.settings.with_options(lanes="0" * 4 + "1" * (len(operators_in(model.program)) - 4))
    store.save(model.replace(settings=settings.with_options(parts=2, devices="each")), tmp_path / "many")
    x = torch.randn(6, 8)
    wanted = model.program.module()(x)
    monkeypatch.setattr(run.eager, "placed", placed)
    many = store.load(tmp_path / "many")

    for one, found in zip(wanted, many(x), strict=True):
        torch.testing.assert_close(found, one)
    many.close()


@pytest.mark.parametrize("seed", range(6))
def test_any_lanes_give_the_answers_of_one(model: Model, tmp_path: Path, seed: int) -> None:
    count = len(operators_in(model.program))
    generator = torch.Generator().manual_seed(seed)
    text = "".join(str(int(one)) for one in torch.randint(3, (count,), generator=generator))
    store.save(model, tmp_path / "one")
    store.save(model.replace(settings=model.settings.with_options(lanes=text)), tmp_path / "many")
    one, many = store.load(tmp_path / "one"), store.load(tmp_path / "many")
    x = torch.randn(7, 8)

    for _ in range(3):
        for wanted, found in zip(one(x), many(x), strict=True):
            assert torch.equal(wanted, found)
    many.close()


@pytest.mark.parametrize("text", ["0", "0123456789" * 9, "x" * 9])
def test_lanes_that_do_not_fit_the_graph_are_refused(model: Model, tmp_path: Path, text: str) -> None:
    store.save(model.replace(settings=model.settings.with_options(lanes=text)), tmp_path / "many")

    with pytest.raises(ArtifactError, match="lanes for its"):
        store.load(tmp_path / "many")


MEETING = threading.Barrier(2, timeout=20)


def meet(x: Tensor) -> Tensor:
    """Ends only if another thread calls it at the same time."""
    MEETING.wait()
    return x + 1


def fail(x: Tensor) -> Tensor:
    """Does not end well."""
    raise RuntimeError("this operator fails")


def crew_of(function: object, lanes: list[int]) -> Crew:
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    one, two = (graph.call_function(function, (x,)) for _ in range(2))  # type: ignore[arg-type]
    graph.output((graph.call_function(torch.add, (one, two)),))
    nodes = [node for node in graph.nodes if node.op == "call_function"]
    assert needs_of(nodes) == [[], [], [0, 1]]
    return Crew(graph, nodes, lanes, nn.Module(), 1)


def test_lanes_work_at_the_same_time() -> None:
    crew = crew_of(meet, [0, 1, 0])

    assert crew([torch.ones(2)])[0].tolist() == [4.0, 4.0]
    crew.close()


@pytest.mark.parametrize("lanes", [[0, 1, 0], [1, 0, 1], [1, 1, 0]])
def test_an_operator_that_fails_on_any_lane_fails_the_call(lanes: list[int]) -> None:
    crew = crew_of(fail, lanes)

    with pytest.raises(RuntimeError, match="this operator fails"):
        crew([torch.ones(2)])
    crew.close()
