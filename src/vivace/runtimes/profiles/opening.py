"""A worker's entry: a program folder, opened under the profiler of its engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vivace.core.errors import NotApplicable
from vivace.core.program import Form, Model
from vivace.runtimes import store
from vivace.runtimes.profiles.native_clock import open_native
from vivace.runtimes.profiles.onnx_events import open_onnx
from vivace.runtimes.profiles.openvino_counters import open_openvino
from vivace.runtimes.profiles.profiled import Profiled, Shapes
from vivace.runtimes.profiles.torch_events import open_graph, open_inductor
from vivace.runtimes.settings import heap

_ENGINES: dict[Form, Callable[[Model, Shapes, Model], Profiled]] = {
    Form.TORCH: open_graph,
    Form.INDUCTOR: open_inductor,
    Form.NATIVE: open_native,
    Form.ONNX: open_onnx,
    Form.OPENVINO: open_openvino,
}


def open_profiled(arguments: Mapping[str, Any], payload: object | None = None) -> Profiled:
    """The worker's entry. `arguments`: "program" and "original", program folders, the latter of the captured model, by
    whose layers operators are told; and "shapes" of the flat inputs of the calls to come.

    The program runs under the settings that it was stored with. Raises NotApplicable for one that is not profiled, and
    what opening it raises.
    """
    model, captured = store.read_model(Path(arguments["program"])), store.read_model(Path(arguments["original"]))
    _refuse(model)
    shapes = tuple(tuple(shape) for shape in arguments["shapes"])
    profiled = _ENGINES[model.form](model, shapes, captured)
    if model.settings.heap_bytes:
        heap.hold(model.settings.heap_bytes)
        profiled.program.on_close(heap.release)
    return profiled


def _refuse(model: Model) -> None:
    """Raise NotApplicable with the reason for a program that is not profiled."""
    if model.settings.device != "cpu":
        raise NotApplicable(f"programs on {model.settings.device} are not profiled yet")
    if model.settings.instances > 1:
        raise NotApplicable(f"it runs as {model.settings.instances} copies at the same time, which are not profiled")
    if model.settings.padding is not None:
        raise NotApplicable("its calls are padded, which is not profiled yet")
    if model.form not in _ENGINES:
        raise NotApplicable(f"a program of form {model.form.value} does not tell where its time goes")
