"""A search over a cluster for people and for programs: hardware ranked by time and by cost, and every trial."""

from __future__ import annotations

from rich.console import Group, RenderableType

from vivace.core.measurement import Outcome
from vivace.distributed.standings import ClusterResult, Node, NodeTrial, Standing
from vivace.report.document import JsonDocument, document_from
from vivace.report.layout import line, plain_table, short
from vivace.report.wording import show_speedup

SCHEMA_VERSION = 1


class ClusterDocument(JsonDocument):
    """A search over a cluster. Seconds are of a call, MEASURED on the node that is named."""

    schema_version: int
    name: str
    nodes: list[Node]
    standings: list[Standing]
    by_cost: list[str]
    trials: list[NodeTrial]
    lost: list[str]
    untried: list[str]
    artifact: str | None


def cluster_document(found: ClusterResult) -> ClusterDocument:
    """The document of a search over a cluster; `by_cost` names kinds of hardware, the cheapest call first."""
    artifact = None if found.artifact is None else str(found.artifact)
    by_cost = [one.kind for one in found.by_cost]
    return document_from(ClusterDocument, found, schema_version=SCHEMA_VERSION, by_cost=by_cost, artifact=artifact)


def cluster_block(found: ClusterResult) -> RenderableType:
    """Hardware by time, then by cost where prices were given, and how the trials ended."""
    table = plain_table("hardware", "ms a call", "speed-up there", "a million calls", "plan", giving="plan")
    for one in found.standings:
        cost = "-" if one.cost_per_million_calls is None else f"{one.cost_per_million_calls:.4g}"
        speedup = "-" if one.speedup is None else show_speedup(one.speedup)
        hardware = f"{', '.join(one.nodes)} ({one.cores} cores)"
        table.add_row(hardware, f"{one.seconds * 1e3:.3g}", speedup, cost, short(one.plan))
    failed = [trial for trial in found.trials if trial.outcome is not Outcome.OK]
    return Group(
        line(f"{found.name}: {len(found.trials)} trials on {len(found.nodes)} nodes, each judged on its own hardware "
             "(MEASURED)"),
        table,
        *(line(f"{place}. by cost: {one.cost_per_million_calls:.4g} for a million calls on {', '.join(one.nodes)} with "
               f"{one.plan}") for place, one in enumerate(found.by_cost, 1)),
        *(line(f"{trial.node}: {trial.plan}: {trial.outcome.value}: {trial.reason}") for trial in failed[:8]),
        *([line(f"died: {', '.join(found.lost)}")] if found.lost else []),
        *([line(f"nobody was left to try: {'; '.join(found.untried)}")] if found.untried else []),
        *([line(f"kept in {found.artifact}")] if found.artifact else []),
    )  # fmt: skip
