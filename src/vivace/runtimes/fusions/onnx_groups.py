"""What ONNX Runtime fused: the graph that it runs compared with the file, by the tensors that both have."""

from __future__ import annotations

import ast
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vivace.core.layer import Fused
from vivace.core.program import Model
from vivace.runtimes.graphs.layers import WRAPPER, enclosing
from vivace.runtimes.onnx_graph import require
from vivace.runtimes.onnx_session import open_session

_SOURCE = "pkg.torch.onnx.fx_node"
_BLOCKED = "_nchwc"
"""ONNX Runtime calls an operator in its blocked layout by the tensor that it makes, and this (nchwc_transformer.cc)."""
_SCOPES = "pkg.torch.onnx.name_scopes"
"""Under which the exporter writes the modules that a node came from, outermost first, and the node's own name."""
_SHAPES = {"Cast", "Constant", "ConstantOfShape", "Expand", "Flatten", "Identity", "Reshape", "Shape", "Squeeze"}
_CONVERSIONS = {"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"}
_MOVES = frozenset({*_SHAPES, *_CONVERSIONS, "Concat", "Gather", "Slice", "Split", "Transpose", "Unsqueeze"})
"""Operators that move or convert data, or make shapes: no layer's work."""
_COPIES = frozenset({"ReorderInput", "ReorderOutput"})


def groups(model: Model) -> tuple[list[Fused], str]:
    """Each operator that ONNX Runtime runs for several layers, and a note on what could not be told.

    An operator does the work of all operators of the file between the tensors that it takes and the one that it makes.
    Layers are module paths where the file tells them, as those that PyTorch wrote do, and names of nodes elsewhere.
    """
    require("onnx", "onnx", "reading an ONNX file")
    import onnx

    path = Path(model.program)
    with tempfile.TemporaryDirectory() as folder:
        open_session(path, model.settings, Path(folder) / "optimized.onnx")
        runs = onnx.load(str(Path(folder) / "optimized.onnx"), load_external_data=False).graph
    return compare(onnx.load(str(path), load_external_data=False).graph, runs)


def compare(stored: Any, runs: Any) -> tuple[list[Fused], str]:
    """The groups of one graph (a GraphProto) in terms of the other, and a note on what could not be traced."""
    found = list(traced(stored, runs))
    untold = sum(layers is None for _, layers in found)
    groups = [Fused(node.op_type, layers) for node, layers in found if layers is not None and len(layers) > 1]
    return groups, f"{untold} operators of ONNX Runtime could not be traced" if untold else ""


def traced(stored: Any, runs: Any) -> Iterator[tuple[Any, tuple[str, ...] | None]]:
    """Each node of the graph that runs, with the layers of the stored one that it works for: none for one that only
    moves data, None where that cannot be told."""
    file = _Stored(stored, {tensor.name for tensor in runs.initializer})
    alias: dict[str, str] = {}
    for node in runs.node:
        taken = [alias.get(name, name) for name in node.input if name and name not in file.constants]
        made = taken[0] if node.op_type in _COPIES and taken else file.made_by(node)
        alias[node.output[0]] = made
        if node.op_type in _COPIES | _MOVES:
            yield node, ()
            continue
        members = file.between(set(taken), made)
        layers = (layer for member in members or () for layer in file.layers_of(member))
        yield node, None if members is None else tuple(dict.fromkeys(layers))


class _Stored:
    """A stored graph, asked which of its nodes lie between tensors."""

    def __init__(self, graph: Any, more_constants: Iterable[str]) -> None:
        self.constants = {tensor.name for tensor in graph.initializer} | set(more_constants)
        self._makers = {tensor: node for node in graph.node for tensor in node.output}
        self._users: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self._users.setdefault(name, []).append(node)
        paths = {scopes[-2].removeprefix(WRAPPER) for node in graph.node if len(scopes := _scopes(node)) > 2}
        self._inner = enclosing(paths)

    def made_by(self, node: Any) -> str:
        """The stored graph's tensor that an operator of the other graph makes."""
        if _BLOCKED not in node.name:
            return str(node.output[0])
        made = node.name.partition(_BLOCKED)[0]
        if len(node.input) > 3:  # a sum that was fused after the operator got its name
            made = self._after(made, "Add")
        told = next((attribute.s.decode() for attribute in node.attribute if attribute.name == "activation"), "")
        is_there = made in self._makers and self._makers[made].op_type == told
        return made if is_there or not told else self._after(made, told)

    def between(self, taken: set[str], made: str) -> list[Any] | None:
        """The nodes that lead from some tensors to another, in order; None where they need more than those tensors."""
        pending, seen = [made], dict[str, Any]()
        while pending:
            tensor = pending.pop()
            if tensor in self.constants or not tensor:
                continue
            if tensor not in self._makers:
                return None
            node = self._makers[tensor]
            if node.output[0] not in seen:
                seen[node.output[0]] = node
                pending.extend(name for name in node.input if name not in taken)
        return list(seen.values())[::-1]

    def layers_of(self, node: Any) -> list[str]:
        """The layer that a node does the work of, and that of a product whose batch normalization the node is."""
        if node.op_type in _MOVES:
            return []
        scopes = _scopes(node)
        own = scopes[-2].removeprefix(WRAPPER) if len(scopes) > 2 else ""
        name = scopes[-1] if scopes else str(node.name)
        if own in ("", WRAPPER.removesuffix(".")):
            return [name]
        folded = "batch_norm" in _notes(node).get(_SOURCE, "")
        weights = [name for name in node.input if name.startswith(WRAPPER) and folded]
        owners = [name.removeprefix(WRAPPER).rpartition(".")[0] for name in weights]
        return [*owners, f"{own}/{name}" if own in self._inner else own]

    def _after(self, tensor: str, kind: str) -> str:
        """What the one node of this kind makes that uses a tensor; the tensor itself where there is none."""
        users = [node for node in self._users.get(tensor, []) if node.op_type == kind]
        return str(users[0].output[0]) if len(users) == 1 else tensor


def _notes(node: Any) -> Mapping[str, str]:
    return {note.key: note.value for note in node.metadata_props}


def _scopes(node: Any) -> list[str]:
    try:
        found = ast.literal_eval(_notes(node).get(_SCOPES, ""))
    except (ValueError, SyntaxError):
        return []
    return [str(text) for text in found] if isinstance(found, list) else []
