"""What OpenVINO fused: the operators of the graph that it runs, each with the names of those that it was made from."""

from __future__ import annotations

from typing import Any

from vivace.core.program import Model
from vivace.runtimes.fusions.naming import Group
from vivace.runtimes.openvino_graph import import_openvino
from vivace.runtimes.openvino_session import compiled, exact_shapes

_DATA = frozenset({"Input", "Output", "Const", "Reorder", "Reshape", "Transpose"})


def groups(model: Model) -> list[Group]:
    """Each operator that computes, with its originals; of the compilation for the example's shapes where there is one.

    Source: OpenVINO, CompiledModel::get_runtime_model and openvino/runtime/exec_model_info.hpp.
    """
    engine = compiled(import_openvino(), model, exact_shapes(model.settings) or None)
    operators = engine.get_runtime_model().get_ordered_ops()
    told = [(_text(op, "layerType"), _text(op, "originalLayersNames").split(",")) for op in operators]
    return [(kind, [name for name in names if name]) for kind, names in told if kind not in _DATA]


def _text(operator: Any, key: str) -> str:
    notes = operator.get_rt_info()
    return str(notes[key].astype(str)) if key in notes else ""
