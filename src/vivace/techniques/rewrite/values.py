"""What is known of a graph's nodes: who takes them, their dtype, and the values of those that no input reaches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from vivace.techniques.graph import GraphEdit
from vivace.techniques.rewrite.operands import same, shape_of

aten = torch.ops.aten


def users(node: Node) -> list[Node]:
    """Who uses a node, apart from checks of its dtype."""
    return [user for user in node.users if user.target is not aten._assert_tensor_metadata.default]


def uses(node: Node) -> list[Node]:
    """The same, a user as often as it takes the node: z + z takes z twice."""
    return [user for user in users(node) for source in _taken(user) if source is node]


def _taken(node: Node) -> list[Node]:
    """The nodes that a node takes, each as often as it does."""
    found: list[Node] = []
    map_arg((node.args, node.kwargs), found.append)
    return found


def dtype_of(node: Node) -> torch.dtype:
    """The dtype of a node's tensor."""
    dtype: torch.dtype = node.meta["val"].dtype
    return dtype


def constant(edit: GraphEdit, node: Any) -> Tensor | None:
    """The value of a node that depends on weights and numbers alone; None for any other."""
    try:
        found = _evaluate(edit, node)
    except (KeyError, RuntimeError, TypeError):
        return None
    return found if isinstance(found, Tensor) else None


def number(edit: GraphEdit, value: Any) -> float | None:
    """A number, or a weight of one element; None for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, Node) or not all(same(size, 1) for size in shape_of(value)):
        return None
    found = constant(edit, value)
    return None if found is None else float(found)


def _evaluate(edit: GraphEdit, node: Any) -> Any:
    """Run the part of a graph that makes a node, on copies of weights; KeyError where it needs an input."""
    if not isinstance(node, Node):
        return node
    weight = edit.weight(node)
    if weight is not None:
        return weight.clone()
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        raise KeyError(node.name)
    if torch.Tag.nondeterministic_seeded in node.target.tags:
        raise KeyError(node.name)
    args, kwargs = map_arg((node.args, node.kwargs), lambda n: _evaluate(edit, n))
    with torch.no_grad():
        return node.target(*args, **kwargs)
