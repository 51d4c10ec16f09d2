"""What people read of a search over a cluster: hardware by time and by cost, who died, and what nobody could try."""

from __future__ import annotations

import math
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from vivace.core.errors import UsageError
from vivace.core.measurement import Interval, Outcome
from vivace.distributed.standings import ClusterResult, Node, NodeTrial, priced, standings_of
from vivace.report.cluster import cluster_block, cluster_document

NODES = (
    Node("a", "large-kind", "a large processor", 8, ("a", "10.0.0.1", "large")),
    Node("b", "little-kind", "a little processor", 1, ("b", "10.0.0.2", "little")),
)
TRIALS = (
    NodeTrial("a", "large-kind", "threads(count=4)", Outcome.OK, "", Interval(2.0, 1.9, 2.1), 0.001, 0.002),
    NodeTrial("b", "little-kind", "inference-mode", Outcome.OK, "", Interval(1.2, 1.1, 1.3), 0.01, 0.012),
)


def found(prices: dict[str, float], lost: tuple[str, ...] = (), untried: tuple[str, ...] = ()) -> ClusterResult:
    nodes = priced(NODES, prices)
    return ClusterResult("chain", nodes, TRIALS, standings_of(nodes, TRIALS), lost, untried, Path("fast"))


def told(result: ClusterResult) -> str:
    console = Console(file=StringIO(), width=140)
    console.print(cluster_block(result))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_fastest_hardware_is_first_by_time_and_the_cheapest_by_cost() -> None:
    lines = told(found({"large": 3.6, "10.0.0.2": 0.036})).splitlines()

    by_time = [line.split()[0] for line in lines if "cores)" in line]
    by_cost = [line.strip() for line in lines if "by cost" in line]
    assert by_time == ["a", "b"]
    assert by_cost == [
        "1. by cost: 0.1 for a million calls on b with inference-mode",
        "2. by cost: 1 for a million calls on a with threads(count=4)",
    ]


def test_without_prices_nothing_is_said_of_cost() -> None:
    result = found({})

    assert "by cost" not in told(result)
    assert cluster_document(result).by_cost == []


def test_who_died_and_what_nobody_tried_is_told() -> None:
    result = found({}, lost=("b",), untried=("inference-mode + channels-last",))

    assert "died: b" in told(result)
    assert "nobody was left to try: inference-mode + channels-last" in told(result)
    assert cluster_document(result).untried == ["inference-mode + channels-last"]


@pytest.mark.parametrize(
    ("prices", "reason"),
    [
        ({"medium": 1.0}, "no node goes by medium, which was given a price; nodes go by: a, 10.0.0.1, large; b,"),
        ({"large": -1.0}, "the price of large is -1.0; allowed is a number of 0 or more"),
        ({"large": math.nan}, "the price of large is nan"),
    ],
)
def test_prices_that_cannot_be_used_are_refused(prices: dict[str, float], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        priced(NODES, prices)
