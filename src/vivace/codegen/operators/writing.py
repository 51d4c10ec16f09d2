"""Operators that write into an operand: when one is as good as the operator that makes a new tensor."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import Node

from vivace.codegen.lowering import operator_of


def is_mutable(target: Any) -> bool:
    """Whether an operator writes into an operand."""
    return bool(getattr(getattr(target, "_schema", None), "is_mutable", False))


def is_in_place(node: Node) -> bool:
    """Whether it writes into its first operand, as `add_` does (and `__and__` does not)."""
    return is_mutable(node.target) and operator_of(node).endswith("_") and isinstance(node.args[0], Node)


def writes_own(node: Node) -> bool:
    """Whether an operator writes into memory that no other value shares, and nobody reads that afterwards but through
    what the operator gives. Then it is as good as the one that makes a new tensor."""
    made = node.args[0]
    if not isinstance(made, Node) or made.op != "call_function" or not _is_last(made, node):
        return False
    if made.target is operator.getitem:  # who asks for an unsafe split promises to treat its parts so
        return operator_of(made.args[0]).startswith("unsafe_")  # type: ignore[arg-type]
    return writes_own(made) if is_in_place(made) else not _shares(made)


def functional(target: Any) -> Any:
    """The operator that gives what this one writes over its first operand; None where there is none."""
    packet = getattr(torch.ops.aten, target._opname.removesuffix("_"), None)
    found = getattr(packet, target._overloadname, None)
    return None if found is None or found._schema.is_mutable else found


def given_that_is_written(node: Node) -> Node | None:
    """What the graph was given, where the operator writes into it, maybe not as the first, and nobody reads it
    afterwards but through what the operator gives; else None."""
    into = node.args[0] if is_in_place(node) else None
    if not isinstance(into, Node) or not _is_last(into, node):
        return None
    return into if into.op == "placeholder" else given_that_is_written(into)


def _is_last(made: Node, last: Node) -> bool:
    """Whether nobody reads a tensor after `last`, in its own place or in another value's that shares its memory."""
    others = [one for one in made.users if one is not last]
    later = last.next
    while others and later.op != "root":
        if later in others:
            return False
        later = later.next
    return not any(map(_shares, others))


def _shares(node: Node) -> bool:
    """Whether what an operator gives may lie in the memory of what it was given."""
    schema = getattr(node.target, "_schema", None)
    return schema is None or any(one.alias_info is not None for one in schema.returns)
