"""Layouts and teams as users type them: read, filled with copies, and refused where the numbers do not divide."""

from __future__ import annotations

import pytest
import torch

from vivace.core.errors import UsageError
from vivace.core.facts import Fact
from vivace.core.plan import Plan
from vivace.core.technique import Technique
from vivace.distributed.layout import Layout
from vivace.distributed.rank import speaking
from vivace.distributed.team import PORT, Team
from vivace.search.training.choose import START
from vivace.techniques.compile.compiled_training import CompiledTraining
from vivace.techniques.compile.recorded_step import RecordedStep
from vivace.techniques.memory.fused_optimizer import FusedOptimizer
from vivace.techniques.memory.gradient_accumulation import GradientAccumulation
from vivace.techniques.parallel.layouts import layout_of, techniques_of, with_layout


def test_a_layout_reads_back_what_it_says_of_itself() -> None:
    layout = Layout(data=2, pipeline=3, micro=6, schedule="gpipe")

    assert Layout.read(str(layout)) == layout


def test_processes_that_no_axis_names_hold_copies() -> None:
    assert Layout.of("", 4) == Layout(data=4)
    assert Layout.of("tensor=2", 4) == Layout(data=2, tensor=2)


@pytest.mark.parametrize(
    ("text", "processes", "told"),
    [
        ("tensor=3", 4, "tensor=3 is for 3 processes, which do not divide 4; .* 1, 2, 4"),
        ("data=8", 4, "for 8 processes"),
        ("tensro=2", 2, "did you mean 'tensor'"),
        ("tensor", 2, "allowed is tensor=NUMBER"),
        ("tensor=0", 2, "tensor=0; allowed is a whole number of 1"),
        ("schedule=zigzag", 2, "allowed are 1f1b, gpipe"),
        ("data=2,data=4", 4, "'data=2,data=4' has data twice"),
        ("tensor=\N{SUPERSCRIPT TWO}", 2, "allowed is tensor=NUMBER"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(text: str, processes: int, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Layout.of(text, processes)


@pytest.mark.parametrize(
    ("layout", "plan"),
    [
        (Layout(data=2), "data-parallel"),
        (Layout(data=2, pipeline=2), "pipeline-parallel + data-parallel"),
        (Layout(shard=2, tensor=2), "tensor-parallel + fully-sharded"),
        (Layout(data=2, shard=2), "fully-sharded(copies=2)"),
    ],
)
def test_a_legal_composition_is_a_plan_in_the_order_in_which_it_acts(layout: Layout, plan: str) -> None:
    found = Plan.of(techniques_of(layout))

    assert str(found) == plan
    assert found.illegal(START) is None


def test_every_arrangement_of_four_processes_is_a_legal_plan_that_tells_its_layout() -> None:
    layouts = Layout.every(4)
    plans = [Plan.of(techniques_of(layout)) for layout in layouts]

    assert len(layouts) == len(set(layouts)) == 10
    assert {layout.processes for layout in layouts} == {4}
    assert [plan.illegal(START) for plan in plans] == [None] * 10
    assert [layout_of(plan) for plan in plans] == layouts


def test_a_plan_without_a_layout_is_of_one_process() -> None:
    assert layout_of(Plan((FusedOptimizer(),))) == Layout()


def test_another_layout_takes_the_place_of_the_one_that_a_plan_has() -> None:
    before = Plan.of([FusedOptimizer(), *techniques_of(Layout(data=2))])

    assert str(with_layout(before, Layout(data=2, shard=2))) == "fused-optimizer + fully-sharded(copies=2)"
    assert str(with_layout(before, Layout())) == "fused-optimizer"


COMPILED = [RecordedStep(), CompiledTraining(), CompiledTraining("loss")]


@pytest.mark.parametrize("technique", COMPILED, ids=str)
def test_what_takes_a_step_as_a_whole_may_stand_beside_copies_of_the_model(technique: Technique) -> None:
    assert Plan.of([*techniques_of(Layout(data=2)), technique]).illegal(START | {Fact.CXX_COMPILER}) is None


@pytest.mark.parametrize(
    ("layout", "technique", "told"),
    [
        (Layout(shard=2), RecordedStep(), "recorded-step needs layers that are whole on each process, which fully-"),
        (Layout(tensor=2), CompiledTraining(), "compiled-training needs layers that are whole on each process, which"),
        (Layout(pipeline=2), RecordedStep(), "recorded-step needs a model all of whose layers are on each process"),
        (Layout(pipeline=2), GradientAccumulation(), "pipeline-parallel needs batches that are computed as a whole"),
        (Layout(shard=2), GradientAccumulation(), "fully-sharded needs batches that are computed as a whole"),
        (Layout(tensor=2), FusedOptimizer(), "tensor-parallel needs an optimizer whose kernels were not chosen yet"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_stand_beside_a_layout_says_which_fact_is_missing(
    layout: Layout, technique: Technique, told: str
) -> None:
    found = Plan.of([*techniques_of(layout), technique]).illegal(START | {Fact.CXX_COMPILER})

    assert found is not None and found.startswith(told)


def test_a_team_as_torchrun_has_it() -> None:
    team = Team.of(4, "1:2", node_rank=1, address="10.0.0.1")

    assert (team.least_nodes, team.nodes, team.everyone, team.port) == (1, 2, 8, PORT)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"nodes": "two"}, "allowed is a number, or LEAST:MOST"),
        ({"nodes": "3:2"}, "LEAST from 1 to MOST"),
        ({"nodes": "2", "node_rank": 2}, "there are 2 nodes; allowed is 0 to 1"),
        ({"processes": 0}, "processes is 0"),
        ({"port": 70000}, "allowed is 0"),
        ({"deadline": 0.0}, "seconds above 0"),
        ({"deadline": float("inf")}, "deadline is inf; allowed is .* up to 10,000,000"),
        ({"nodes": "\N{SUPERSCRIPT TWO}"}, "allowed is a number, or LEAST:MOST"),
        ({"processes": 3, "layout": "tensor=2"}, "do not divide 3"),
    ],
)
def test_a_team_that_cannot_be_is_refused(asked: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Team.of(**{"processes": 2, **asked})  # type: ignore[arg-type]


def test_a_team_shrinks_to_what_its_layout_allows() -> None:
    assert Team(processes=4, layout="tensor=2").smaller() == Team(processes=2, layout="tensor=2")
    assert Team(processes=2, layout="tensor=2").smaller() == Team(processes=1, layout="data=1")
    assert Team(processes=3, layout="shard=3").smaller() == Team(processes=2, layout="shard=2")
    assert Team(processes=1).smaller() is None


@pytest.mark.parametrize(
    ("layout", "left", "found"),
    [
        ("data=4", 3, "data=3"),
        ("shard=4", 3, "shard=3"),
        ("data=2,shard=2", 2, "shard=2"),
        ("tensor=4", 2, "tensor=2"),
        ("tensor=4", 3, "data=3"),
        ("pipeline=4,micro=2,schedule=gpipe", 3, "pipeline=3,micro=2,schedule=gpipe"),
        ("tensor=2,pipeline=2", 2, "pipeline=2,micro=4,schedule=1f1b"),
        ("shard=2,tensor=2", 1, "data=1"),
    ],
)
def test_what_is_left_of_a_layout_keeps_a_model_in_as_many_parts_as_can_be(layout: str, left: int, found: str) -> None:
    assert str(Layout.read(layout).left_to(left)) == found


def test_more_processes_than_cards_are_refused_before_nccl_is_asked() -> None:
    Team(processes=2, device="cuda").check_cards(2)

    with pytest.raises(UsageError, match="processes is 2, and this machine has 1 CUDA device, of which each process"):
        Team(processes=2, device="cuda").check_cards(1)


def test_ranks_on_cards_speak_by_nccl_each_with_its_own_card() -> None:
    card = torch.device("cuda", 1)

    assert speaking(card) == {"backend": "nccl", "device_id": card}
    assert speaking(torch.device("cpu")) == {"backend": "gloo"}
