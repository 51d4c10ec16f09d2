"""Trials spread over nodes: a list for each kind of hardware, and a dead node loses its own trial alone."""

from __future__ import annotations

import pytest

from vivace.core.measurement import Interval, Outcome
from vivace.core.quality import QualityVerdict
from vivace.distributed.standings import ClusterResult, Node, NodeTrial, cost_per_million, standings_of
from vivace.distributed.trial_lists import TrialLists

SMALL = Node("small", "s", "a processor", 2, price_an_hour=0.1)
LARGE = Node("large", "l", "a processor", 16, price_an_hour=2.0)
TWIN = Node("twin", "l", "a processor", 16, price_an_hour=1.8)


def ok(node: Node, plan: str, seconds: float) -> NodeTrial:
    speedup = Interval(0.01 / seconds, 0.01 / seconds, 0.01 / seconds)
    return NodeTrial(node.name, node.kind, plan, Outcome.OK, "", speedup, seconds, 0.01, QualityVerdict.HELD)


def test_nodes_of_one_kind_share_a_list_and_others_have_their_own() -> None:
    lists = TrialLists({"a": "x", "b": "x", "c": "y"}, {"x": ["p", "q"], "y": ["p", "q"]})

    assert [lists.take(node) for node in ("a", "b", "c", "a", "c")] == ["p", "q", "p", None, "q"]


def test_a_node_that_dies_loses_its_trial_and_gets_no_other() -> None:
    lists = TrialLists({"a": "x", "b": "x"}, {"x": ["p", "q", "r"]})
    lists.take("a")
    lists.take("b")

    assert lists.lose("a") == "p"
    assert lists.take("a") is None
    assert lists.take("b") == "r"
    assert (lists.lost, lists.untried()) == (("a",), {})


def test_what_nobody_is_left_to_try_is_told() -> None:
    lists = TrialLists({"a": "x", "b": "y"}, {"x": ["p", "q"], "y": ["p"]})
    lists.take("a")
    lists.lose("a")

    assert lists.untried() == {"x": ["q"]}


def test_hardware_ranks_by_time_and_by_what_calls_cost() -> None:
    trials = (ok(SMALL, "p", 0.004), ok(SMALL, "q", 0.005), ok(LARGE, "p", 0.001))
    nodes = (SMALL, LARGE, TWIN)
    found = ClusterResult("job", nodes, trials, standings_of(nodes, trials))

    assert [(one.kind, one.plan, one.seconds) for one in found.standings] == [("l", "p", 0.001), ("s", "p", 0.004)]
    assert [one.kind for one in found.by_cost] == ["s", "l"]
    assert found.by_cost[0].cost_per_million_calls == pytest.approx(0.004 * 1e6 / 3600 * 0.1)
    assert found.by_cost[1].cost_per_million_calls == pytest.approx(cost_per_million(0.001, 1.8))


def test_where_nothing_held_the_original_stands() -> None:
    refused = NodeTrial("small", "s", "p", Outcome.QUALITY_FAILED, "it lost too much", original_seconds=0.01)

    assert [(one.plan, one.seconds, one.speedup) for one in standings_of((SMALL,), (refused,))] == [
        ("original", 0.01, None)
    ]


def test_a_kind_that_nobody_timed_does_not_stand() -> None:
    lost = NodeTrial("small", "s", "p", Outcome.INFRA_ERROR, "its node died")

    assert standings_of((SMALL,), (lost,)) == ()


def test_an_original_that_several_trials_timed_stands_with_their_middle_and_not_with_the_luckiest() -> None:
    trials = tuple(
        NodeTrial("small", "s", plan, Outcome.NOT_FASTER, "slower", original_seconds=seconds)
        for plan, seconds in (("p", 0.010), ("q", 0.004), ("r", 0.011))
    )

    (standing,) = standings_of((SMALL,), trials)

    assert (standing.plan, standing.seconds) == ("original", 0.010)
