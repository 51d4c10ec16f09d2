"""What a search over a cluster gave: its nodes, every trial on the node that judged it, and how the hardware ranks."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from vivace.core.errors import UsageError
from vivace.core.measurement import Interval, Outcome
from vivace.core.quality import QualityVerdict

SECONDS_AN_HOUR = 3600.0


@dataclasses.dataclass(frozen=True)
class Node:
    """One machine of a cluster. `kind` is equal for nodes on which a proof carries over (`Machine.fingerprint`).

    `labels` are the names by which a price may be given: its name, its address, its own resources. `price_an_hour` is
    in the user's currency, None where it was not given.
    """

    name: str
    kind: str
    processor: str
    cores: int
    labels: tuple[str, ...] = ()
    price_an_hour: float | None = None


@dataclasses.dataclass(frozen=True)
class NodeTrial:
    """One plan that was tried on one node, against the original on the same node. Seconds are of a call, MEASURED.

    A trial whose node died has the outcome infra_error and says so.
    """

    node: str
    kind: str
    plan: str
    outcome: Outcome
    reason: str = ""
    speedup: Interval | None = None
    seconds: float | None = None
    original_seconds: float | None = None
    quality: QualityVerdict | None = None

    @property
    def counts(self) -> bool:
        """Whether it may be called the best: it was timed, and its quality was not refused."""
        return self.outcome is Outcome.OK and self.seconds is not None and self.quality is not QualityVerdict.NOT_HELD


@dataclasses.dataclass(frozen=True)
class Standing:
    """What one kind of hardware reaches: its nodes, its fastest plan that held, and what calls cost there.

    `cost_per_million_calls` is of calls one after the other on a whole node; None without a price.
    """

    kind: str
    nodes: tuple[str, ...]
    processor: str
    cores: int
    plan: str
    seconds: float
    speedup: Interval | None
    cost_per_million_calls: float | None


@dataclasses.dataclass(frozen=True)
class ClusterResult:
    """A search over a cluster: standings by time, the fastest hardware first. `lost` names nodes that died, `untried`
    plans that were left when the last node of a kind had.

    `artifact` is that of the first standing's plan; None where nothing was faster than the original anywhere.
    """

    name: str
    nodes: tuple[Node, ...]
    trials: tuple[NodeTrial, ...]
    standings: tuple[Standing, ...]
    lost: tuple[str, ...] = ()
    untried: tuple[str, ...] = ()
    artifact: Path | None = None

    @property
    def by_cost(self) -> tuple[Standing, ...]:
        """The standings that have a price, the cheapest call first."""
        priced = [one for one in self.standings if one.cost_per_million_calls is not None]
        return tuple(sorted(priced, key=lambda one: one.cost_per_million_calls or 0.0))


def priced(nodes: Sequence[Node], prices: Mapping[str, float]) -> tuple[Node, ...]:
    """Nodes with the first price that one of their labels has. Raises UsageError for a price that is no number of 0 or
    more, and for one that no node goes by.

    >>> [node.price_an_hour for node in priced([Node("a", "x", "cpu", 2, ("a", "large"))], {"large": 0.5})]
    [0.5]
    """
    for label, price in prices.items():
        if not (math.isfinite(price) and price >= 0):
            raise UsageError(f"the price of {label} is {price}; allowed is a number of 0 or more, for an hour")
        if not any(label in node.labels for node in nodes):
            known = "; ".join(", ".join(node.labels) for node in nodes)
            raise UsageError(f"no node goes by {label}, which was given a price; nodes go by: {known}")
    return tuple(
        dataclasses.replace(node, price_an_hour=next((prices[label] for label in node.labels if label in prices), None))
        for node in nodes
    )


def cost_per_million(seconds: float, price_an_hour: float) -> float:
    """What a million calls cost that take so long each.

    >>> round(cost_per_million(0.0036, 2.0), 3)
    2.0
    """
    return seconds * 1e6 / SECONDS_AN_HOUR * price_an_hour


def standings_of(nodes: tuple[Node, ...], trials: tuple[NodeTrial, ...]) -> tuple[Standing, ...]:
    """The best of each kind of hardware, the fastest first; the original where no plan was faster there."""
    found: list[Standing] = []
    for kind in dict.fromkeys(node.kind for node in nodes):
        mine = [node for node in nodes if node.kind == kind]
        tried = [trial for trial in trials if trial.kind == kind and trial.original_seconds is not None]
        good = [trial for trial in tried if trial.counts]
        if not tried:
            continue
        best = min(good, key=lambda trial: trial.seconds or 0.0, default=None)
        originals = [trial.original_seconds for trial in tried if trial.original_seconds is not None]
        seconds = best.seconds if best is not None and best.seconds is not None else statistics.median(originals)
        prices = [node.price_an_hour for node in mine if node.price_an_hour is not None]
        found.append(
            Standing(
                kind=kind,
                nodes=tuple(node.name for node in mine),
                processor=mine[0].processor,
                cores=mine[0].cores,
                plan=best.plan if best is not None else "original",
                seconds=seconds,
                speedup=best.speedup if best is not None else None,
                cost_per_million_calls=cost_per_million(seconds, min(prices)) if prices else None,
            )
        )
    return tuple(sorted(found, key=lambda one: one.seconds))
