"""To form OPENVINO: the exported graph, or the ONNX file, written as an OpenVINO model without changed weights."""

from __future__ import annotations

import functools
import importlib.util
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vivace.core.errors import NotApplicable
from vivace.core.program import Form, Model
from vivace.core.work import Work
from vivace.runtimes.graphs.layers import layers_of as layers_of_graph
from vivace.runtimes.graphs.same_layers import matched, weights_of
from vivace.runtimes.onnx_graph import conversion_folder, quiet, require, to_onnx

PRODUCTS = ("Convolution", "GroupConvolution", "MatMul")
RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_CONVERSIONS = ("Convert", "FakeQuantize", "Multiply", "Reshape", "Transpose")
"""What stands between a weight and its product, quantized or not: none changes the direction of a channel's weights."""
_TYPES = threading.Lock()


def to_openvino(model: Model, work: Work) -> Model:
    """The model as model.xml and model.bin under `work.folder`/openvino, float32 weights kept as they are.

    Converted from the exported graph, and through ONNX where that fails or would unroll a recurrent cell. Raises
    MissingExtra, NotApplicable.
    """
    if model.form is Form.OPENVINO:
        return model
    if model.form not in (Form.TORCH, Form.ONNX):
        raise NotApplicable(f"a program of form {model.form.value} cannot be converted to OpenVINO")
    folder = conversion_folder(work, "openvino", model)
    if not (folder / "model.xml").is_file():
        save_graph(_converted(model, work), folder)
    return model.replace(form=Form.OPENVINO, program=folder / "model.xml")


def rewritten(plain: Model, work: Work, step: str, make: Callable[[], Any]) -> Model:
    """An OpenVINO model with one more step in its lineage, whose graph `make` gives; all plans share it."""
    model = plain.replace(lineage=(*plain.lineage, step))
    folder = conversion_folder(work, "openvino", model)
    if not (folder / "model.xml").is_file():
        save_graph(make(), folder)
    return model.replace(program=folder / "model.xml")


def layers_of(converted: Model, captured: Model) -> dict[str, str]:
    """For each product of a converted graph, by OpenVINO's name, the layer of the captured one that it came from.

    OpenVINO puts a layer's own name first, and loses it where it fuses: those are found by their weights.
    """
    graph = import_openvino().Core().read_model(str(converted.program))
    products = [op for op in graph.get_ordered_ops() if op.get_type_name() in PRODUCTS]
    layers = {layer.name for layer in layers_of_graph(captured)}
    names = [op.get_friendly_name() for op in products]
    found = {name: name.partition("/")[0].removeprefix("node_") for name in names}
    found = {operator: layer for operator, layer in found.items() if layer in layers}
    unnamed = [(op.get_friendly_name(), _weight(op)) for op in products if op.get_friendly_name() not in found]
    rest = {name: weight for name, weight in weights_of(captured.program).items() if name not in found.values()}
    return found | matched(rest, {name: weight for name, weight in unnamed if weight is not None})


def _weight(product: Any) -> Any:
    """The constant that a product's second input is, behind conversions of its type, shape or scale; None for none."""
    source = product.input_value(1).get_node()
    while source.get_type_name() in _CONVERSIONS:
        source = source.input_value(0).get_node()
    return source.data if source.get_type_name() == "Constant" else None


def import_openvino() -> Any:
    """The openvino package with its telemetry off. Raises MissingExtra."""
    require("openvino", "openvino", "running OpenVINO")
    silence_telemetry()
    with quiet():
        import openvino
    with _TYPES:
        _touch_types(openvino)
    return openvino


@functools.cache
def _touch_types(openvino: Any) -> None:
    """Have OpenVINO fill its tables of element types, in one thread.

    Its binding fills each table at the first use, and two threads that do so at the same time wait for each other for
    ever: one holds the table's guard and wants the interpreter's lock, the other has it the other way round.
    """
    openvino.Type.f32.to_dtype()
    _ = openvino.Tensor(np.zeros(1, np.float32), shared_memory=True).data


def silence_telemetry() -> None:
    """Tell OpenVINO's and NNCF's telemetry package to send nothing, before either is imported."""
    if not _has("openvino_telemetry"):
        return
    from openvino_telemetry import Telemetry  # type: ignore[import-untyped,import-not-found,unused-ignore]

    for name in (
        "init",
        "send_event",
        "send_error",
        "send_stack_trace",
        "start_session",
        "end_session",
        "force_shutdown",
    ):
        if hasattr(Telemetry, name):
            setattr(Telemetry, name, lambda *args, **kwargs: None)


def save_graph(graph: Any, folder: Path) -> Path:
    """Write an OpenVINO model as `folder`/model.xml and model.bin, all or nothing; answers the .xml."""
    openvino = import_openvino()
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".converting.", dir=folder.parent))
    try:
        openvino.save_model(graph, str(beside / "model.xml"), compress_to_fp16=False)
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder / "model.xml"


def _converted(model: Model, work: Work) -> Any:
    openvino = import_openvino()
    if model.form is Form.TORCH and not _has_recurrence(model):
        try:
            with quiet():
                return openvino.convert_model(model.program)
        except Exception:  # the front end raises several kinds; ONNX is the second way in  # noqa: BLE001
            pass
    model = to_onnx(model, work)
    try:
        with quiet():
            return openvino.Core().read_model(str(model.program))
    except RuntimeError as error:
        raise NotApplicable(f"OpenVINO cannot read the model: {str(error)[:400]}") from error


def _has_recurrence(model: Model) -> bool:
    """Whether the graph holds a recurrent cell: the front end for exported graphs unrolls it, the one for ONNX does not
    (an LSTM over 64 steps took 11.5 ms unrolled and 5.3 ms whole, and was converted in 13.5 s and 3.8 s)."""
    return any(getattr(node.target, "_opname", "") in RECURRENT for node in model.program.graph.nodes)


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
