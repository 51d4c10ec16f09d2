"""Recorded steps that write into parts of tensors, as ones that make new tensors."""

from __future__ import annotations

import torch
from torch.func import functionalize
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from vivace.codegen.operators.writing import given_that_is_written, is_in_place, writes_own


def without_writes(graph: GraphModule) -> GraphModule:
    """The graph, or, where it writes into what is read under another name (as `x[:, 1:] = y` does), one of operators
    that give what would be there; what it was given and writes is written at its end."""
    nodes = graph.graph.nodes
    if all(not is_in_place(node) or given_that_is_written(node) is not None or writes_own(node) for node in nodes):
        return graph
    given = [node.meta["val"] for node in graph.graph.find_nodes(op="placeholder")]
    with torch.no_grad():
        made: GraphModule = make_fx(functionalize(graph), _allow_non_fake_inputs=True)(*given)
    return made
