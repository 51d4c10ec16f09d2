"""Spells a graph as attention is looked for: softmaxes by their name, and nothing written into scores."""

from __future__ import annotations

from operator import getitem

import torch
from torch.fx import Node

from vivace.codegen.operators.writing import functional, is_in_place, writes_own
from vivace.runtimes.graphs.softmaxes import spelled_softmax
from vivace.techniques.graph import GraphEdit
from vivace.techniques.rewrite.attention import SOFTMAXES
from vivace.techniques.rewrite.products import two_operands
from vivace.techniques.rewrite.values import dtype_of, users

aten = torch.ops.aten


def spell_plainly(edit: GraphEdit) -> None:
    """Write every softmax as one operator, and scores on their way to it anew where operators write into them."""
    _name_softmaxes(edit)
    _write_anew(edit)


def _name_softmaxes(edit: GraphEdit) -> None:
    """Put the one operator in place of each softmax that is spelled out over floats."""
    for node in edit.calls(aten.div.Tensor, aten.exp.default):
        found = spelled_softmax(node)
        if found is None or dtype_of(node) != dtype_of(found[0]):
            continue
        with edit.graph.inserting_before(node):
            softmax = edit.graph.call_function(aten.softmax.int, found)
        softmax.meta = dict(node.meta)
        node.replace_all_uses_with(softmax)
        swept(edit, node)


def _write_anew(edit: GraphEdit) -> None:
    """Put the operator that makes a new tensor in place of each that writes into scores on their way to a softmax,
    where nobody else reads what lay there."""
    for softmax in edit.calls(*SOFTMAXES):
        node = softmax.args[0]
        while isinstance(node, Node) and node.op == "call_function" and two_operands(node) is None:
            other = functional(node.target) if is_in_place(node) and writes_own(node) else None
            if other is not None:
                with edit.graph.inserting_before(node):
                    anew = edit.graph.call_function(other, node.args, node.kwargs)
                anew.meta = dict(node.meta)
                edit.infer(anew)
                if anew.meta["val"].dtype != dtype_of(node):
                    edit.graph.erase_node(anew)
                    break
                node.replace_all_uses_with(anew)
                edit.graph.erase_node(node)
                node = anew
            node = node.args[0] if node.args else None


def swept(edit: GraphEdit, node: Node) -> list[Node]:
    """Take a node away that nothing uses, the checks on it, and what was made for it alone; gives what went."""
    pending, gone = [node], []
    while pending:
        node = pending.pop()
        for part in [user for user in node.users if user.target is getitem and not user.users]:
            edit.graph.erase_node(part)
        if node.op != "call_function" or users(node):
            continue
        for check in list(node.users):
            edit.graph.erase_node(check)
        inputs = node.all_input_nodes
        edit.graph.erase_node(node)
        gone.append(node)
        pending.extend(source for source in inputs if source not in pending)
    return gone
