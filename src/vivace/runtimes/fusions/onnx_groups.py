"""What ONNX Runtime fused: the graph that it runs compared with the file, by the tensors that both have."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vivace.core.program import Model
from vivace.runtimes.fusions.naming import Group
from vivace.runtimes.onnx_graph import require
from vivace.runtimes.onnx_session import open_session

_BLOCKED = "_nchwc"
"""ONNX Runtime calls an operator in its blocked layout by the tensor that it makes, and this (nchwc_transformer.cc)."""
_COPIES = frozenset({"ReorderInput", "ReorderOutput"})


def groups(model: Model) -> tuple[list[Group], str]:
    """Each operator that ONNX Runtime runs with the file's operators whose work it does, and what could not be told.

    An operator does the work of all operators between the tensors that it takes and the one that it makes.
    """
    require("onnx", "onnx", "reading an ONNX file")
    import onnx

    path = Path(model.program)
    with tempfile.TemporaryDirectory() as folder:
        open_session(path, model.settings, Path(folder) / "optimized.onnx")
        runs = onnx.load(str(Path(folder) / "optimized.onnx"), load_external_data=False).graph
    return compare(onnx.load(str(path), load_external_data=False).graph, runs)


def compare(stored: Any, runs: Any) -> tuple[list[Group], str]:
    """The groups of one graph (GraphProto) in terms of another, and a note on operators that could not be traced."""
    makers = {tensor: node for node in stored.node for tensor in node.output}
    known = {*makers, *(port.name for port in stored.input)}
    constants = {tensor.name for graph in (stored, runs) for tensor in graph.initializer}
    alias: dict[str, str] = {}
    found: list[Group] = []
    untold = 0
    for node in runs.node:
        taken = [alias.get(name, name) for name in node.input if name and name not in constants]
        made = node.name.partition(_BLOCKED)[0] if _BLOCKED in node.name else node.output[0]
        if node.op_type in _COPIES:
            made = taken[0]
        alias[node.output[0]] = made
        if made not in makers or not known.issuperset(taken):
            untold += 1
        elif node.op_type not in _COPIES:
            found.append((node.op_type, _between(makers, constants, set(taken), made)))
    return found, f"{untold} operators of ONNX Runtime could not be traced" if untold else ""


def _between(makers: Mapping[str, Any], constants: set[str], taken: set[str], made: str) -> list[str]:
    """The names of the operators that lead from some tensors to another."""
    pending, seen = [made], dict[str, str]()
    while pending:
        tensor = pending.pop()
        node = makers.get(tensor)
        if node is None or tensor in constants or node.output[0] in seen:
            continue
        seen[node.output[0]] = node.name
        pending.extend(name for name in node.input if name not in taken)
    return list(seen.values())[::-1]
