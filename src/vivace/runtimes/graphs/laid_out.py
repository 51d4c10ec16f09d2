"""Weights that a graph lays out for a kernel: done once, when its function is made, and not in every call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

LAYING_OUT = (torch.ops.aten._convert_weight_to_int4pack_for_cpu.default,)
"""What only depends on weights and on the processor."""


def laid_out(graph: fx.Graph, lifted: Sequence[Any]) -> list[Tensor]:
    """Change a graph to take the weights that it lays out after those that it takes first, `lifted`; answers them.

    What depends on a call's own tensors stays as it is.
    """
    placeholders = graph.find_nodes(op="placeholder")
    known: dict[fx.Node, Any] = dict(zip(placeholders, lifted, strict=False))
    found = [node for node in graph.nodes if node.target in LAYING_OUT and _origins(node) <= known.keys()]
    values = [_value(node, known) for node in found]
    for node in found:
        with graph.inserting_before(placeholders[len(lifted)] if len(placeholders) > len(lifted) else node):
            taken = graph.placeholder(f"laid_out_{node.name}")
        node.replace_all_uses_with(taken)
    for node in reversed(list(graph.nodes)):
        if node in known and node.op == "call_function" and not node.users:
            graph.erase_node(node)
    return values


def _origins(node: fx.Node) -> set[fx.Node]:
    """The placeholders that a node depends on."""
    if node.op == "placeholder":
        return {node}
    return set().union(*map(_origins, node.all_input_nodes))


def _value(node: fx.Node, known: dict[fx.Node, Any]) -> Any:
    """What a node gives; that of each node on the way is noted."""
    if node not in known:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda one: _value(one, known))
        with torch.no_grad():
            known[node] = node.target(*args, **kwargs)  # type: ignore[operator]
    return known[node]
