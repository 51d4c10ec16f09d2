"""From OpenVINO's names of operators, which begin with those of graph nodes, to the layers of the captured model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import fx

from vivace.core.layer import Fused
from vivace.runtimes.graphs.counts import BATCH_NORM, VIEWS
from vivace.runtimes.graphs.layers import is_product, names_of

Group = tuple[str, Sequence[str]]
"""An engine's operator, and its names of the operators whose work it does."""


def named(groups: Iterable[Group], nodes: Mapping[str, fx.Node]) -> list[Fused]:
    """Groups by the layers of a captured graph (`nodes` by name); by the given names where there is no such graph.

    What belongs to no node, a constant for example, and what only views a tensor is left out; so is a group that then
    is of one layer.
    """
    found = (Fused(operator, layers_named(names, nodes)) for operator, names in groups)
    return [group for group in found if len(group.layers) > 1]


def layers_named(names: Sequence[str], nodes: Mapping[str, fx.Node]) -> tuple[str, ...]:
    """The layers of one operator, as `named` finds them."""
    if not nodes:
        return tuple(dict.fromkeys(names))
    told = [node for name in names if (node := nodes.get(name.partition("/")[0])) is not None]
    told += [source for node in told if (source := _folded(node)) is not None]
    places = {name: place for place, name in enumerate(nodes)}
    members = sorted(dict.fromkeys(told), key=lambda node: places[node.name])
    members = [node for node in members if getattr(node.target, "_opname", "getitem") not in VIEWS | {"getitem"}]
    return names_of(members)


def _folded(node: fx.Node) -> fx.Node | None:
    """The product that a batch normalization was folded into: it takes another name where that happens."""
    source = node.args[0] if node.args and getattr(node.target, "_opname", "") in BATCH_NORM else None
    return source if isinstance(source, fx.Node) and is_product(source) else None
