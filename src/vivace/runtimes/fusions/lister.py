"""A worker's service that lists what one operator of a program does for several layers of the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vivace.core.layer import Fused, FusedList, joined
from vivace.core.program import Form
from vivace.runtimes import store
from vivace.runtimes.fusions import onnx_groups, openvino_groups
from vivace.runtimes.fusions.naming import named

_UNTOLD = {
    Form.INDUCTOR: "what Inductor fused is not listed",
    Form.AOT_INDUCTOR: "what AOTInductor fused is not listed",
}


def fused(program: Path, original: Path) -> FusedList:
    """What is fused in the program folder `program`, by the layers of the captured model in the folder `original`.

    The rewrites of its plan said what they fused when they did it; OpenVINO and ONNX Runtime are asked for the graph
    that they run. Raises ArtifactError, MissingExtra, NotApplicable where the engine cannot open the program.
    """
    model, captured = store.read_model(program), store.read_model(original)
    groups: list[Fused] = []
    note = _UNTOLD.get(model.form, "")
    if model.form is Form.OPENVINO:
        nodes = openvino_groups.nodes_of(captured, model) if captured.form is Form.TORCH else {}
        groups = named(openvino_groups.groups(model), nodes)
    if model.form is Form.ONNX:
        groups, note = onnx_groups.groups(model)
    return FusedList(joined(model.fused, groups), note)


class Lister:
    """Answers what is fused in programs."""

    def fused(self, program: str, original: str) -> dict[str, Any]:
        """See `fused`; as JSON."""
        found = fused(Path(program), Path(original))
        return {"groups": [group.to_json() for group in found.groups], "note": found.note}


def open_lister(arguments: Mapping[str, Any], payload: object | None = None) -> Lister:
    """The worker's entry."""
    return Lister()
