"""What OpenVINO fused: the operators of the graph that it runs, each with the names of those that it was made from."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from torch import fx

from vivace.core.program import Model
from vivace.runtimes.fusions.naming import Group
from vivace.runtimes.onnx_graph import quiet
from vivace.runtimes.openvino_graph import import_openvino
from vivace.runtimes.openvino_session import compiled, exact_shapes

_DATA = frozenset({"Input", "Output", "Const", "Reorder", "Reshape", "Transpose"})


def groups(model: Model) -> list[Group]:
    """Each operator that computes, with its originals; of the compilation for the example's shapes where there is one.

    Source: OpenVINO, CompiledModel::get_runtime_model and openvino/runtime/exec_model_info.hpp.
    """
    engine = compiled(import_openvino(), model, next(iter(exact_shapes(model.settings)), None))
    operators = engine.get_runtime_model().get_ordered_ops()
    return [(kind, names) for kind, names in map(kind_and_names, operators) if kind not in _DATA]


def kind_and_names(operator: Any) -> Group:
    """What an operator of the graph that runs computes, and the names of those that it was made from."""
    names = note_of(operator, "originalLayersNames").split(",")
    return note_of(operator, "layerType"), [name for name in names if name]


def nodes_of(captured: Model) -> Mapping[str, fx.Node]:
    """The nodes of a captured graph by the names that OpenVINO gives them: those after its own decomposition of the
    graph, and the graph's own where that cannot be had."""
    nodes = {node.name: node for node in captured.program.graph.nodes if node.op == "call_function"}
    with contextlib.suppress(ImportError, AttributeError, RuntimeError), quiet():
        import_openvino()
        from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

        graph = TorchFXPythonDecoder.from_exported_program(captured.program).pt_module.graph
        nodes = {node.name: node for node in graph.nodes if node.op == "call_function"}
    return nodes


def note_of(operator: Any, key: str) -> str:
    """What OpenVINO notes of an operator under a key; empty where it notes nothing."""
    notes = operator.get_rt_info()
    return str(notes[key].astype(str)) if key in notes else ""
