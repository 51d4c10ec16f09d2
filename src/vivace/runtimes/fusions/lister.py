"""A worker's service that lists what one operator of a program does for several layers of the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vivace.core.layer import Fused, FusedList, joined
from vivace.core.program import Form, Model
from vivace.runtimes import inductor, store
from vivace.runtimes.fusions import inductor_kernels, native_groups, onnx_groups, openvino_groups
from vivace.runtimes.fusions.naming import named

_UNTOLD = "Inductor told nothing of what it fused"


def fused(program: Path, original: Path) -> FusedList:
    """What is fused in the program folder `program`, by the layers of the captured model in the folder `original`.

    The rewrites of its plan said what they fused when they did it, and so did AOTInductor. OpenVINO and ONNX Runtime
    are asked for the graph that they run, Inductor compiles once more, and C++ is written out once more. Raises
    ArtifactError, MissingExtra, NotApplicable where the engine cannot open the program.
    """
    model, captured = store.read_model(program), store.read_model(original)
    groups: list[Fused] = []
    note = ""
    if model.form is Form.OPENVINO:
        nodes = openvino_groups.nodes_of(captured, model) if captured.form is Form.TORCH else {}
        groups = named(openvino_groups.groups(model), nodes)
    if model.form is Form.ONNX:
        groups, note = onnx_groups.groups(model)
    if model.form is Form.INDUCTOR:
        groups, note = _of_inductor(model)
    if model.form is Form.NATIVE:
        groups = native_groups.groups(model)
    if model.form is Form.AOT_INDUCTOR and not model.fused:
        note = _UNTOLD
    return FusedList(joined(model.fused, groups), note)


def _of_inductor(model: Model) -> tuple[list[Fused], str]:
    """What Inductor fuses in the code for the example's own shapes."""
    graph = model.program.graph
    with inductor_kernels.recorded(graph) as compilations:
        inductor.compile_exactly(model)
    kernels = compilations[-1] if compilations else []
    return inductor_kernels.groups(kernels, graph), "" if kernels else _UNTOLD


class Lister:
    """Answers what is fused in programs."""

    def fused(self, program: str, original: str) -> dict[str, Any]:
        """See `fused`; as JSON."""
        found = fused(Path(program), Path(original))
        return {"groups": [group.to_json() for group in found.groups], "note": found.note}


def open_lister(arguments: Mapping[str, Any], payload: object | None = None) -> Lister:
    """The worker's entry."""
    return Lister()
