"""What an attacker has: honest artifacts, and the means to change one and to make its digests right again."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vivace.artifact import golden, save
from vivace.artifact.manifest import Golden, Manifest
from vivace.core.program import Form, Model
from vivace.core.signature import Signature, TensorSpec
from vivace.core.structure import Structure
from vivace.core.technique import Effect
from vivace.data import samples
from vivace.devices.machine import detect
from vivace.runtimes import store
from vivace.runtimes.capture import capture

TENSOR = Structure("tensor")
SIGNATURE = Signature(
    Structure("dict", (TENSOR,), ("x",)),
    1,
    (TensorSpec("x", "float32", (None, 4), 0),),
    TENSOR,
    (TensorSpec("output", "float32", (None, 3), 0),),
)
WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3) / 10


def network() -> nn.Module:
    """x W, rectified."""
    linear = nn.Linear(4, 3, bias=False)
    linear.weight = nn.Parameter(torch.from_numpy(WEIGHT.T.copy()))
    return nn.Sequential(linear, nn.ReLU()).eval()


def torch_model(folder: Path) -> Model:
    """The network as an exported graph."""
    return capture(network(), (torch.ones(2, 4),)).model


def onnx_model(folder: Path) -> Model:
    """The network as an ONNX file."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Relu", ["y"], ["output"])]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", k]) for n, k in (("x", 4), ("output", 3))]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [numpy_helper.from_array(WEIGHT, "w")])
    path = folder / "honest.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    )
    return Model(Form.ONNX, path, SIGNATURE)


def openvino_model(folder: Path) -> Model:
    """The network as an OpenVINO model."""
    from vivace.runtimes.openvino_graph import import_openvino, save_graph

    openvino = import_openvino()
    opset = openvino.opset13
    x = opset.parameter([-1, 4], np.float32, name="x")
    product = opset.matmul(x, opset.constant(WEIGHT), False, False)
    return Model(Form.OPENVINO, save_graph(openvino.Model([opset.relu(product)], [x], "g"), folder / "ov"), SIGNATURE)


def artifact_of(model: Model, folder: Path, work: Path) -> Path:
    """An honest artifact of a model, made by the artifact room's own functions."""
    calls: Sequence[Sequence[Tensor]] = [[torch.linspace(-1, 1, 8).reshape(2, 4) * scale] for scale in (1.0, 2.0)]
    store.save(model, work / "program")
    samples.write(work / "calls", calls, model.signature.call, 1)
    save.stage_program(work / "program", work / "staged")
    recorded = golden.Recorder().record(str(work / "staged"), str(work / "calls"), Effect.EXACT.value)
    manifest = Manifest(
        vivace_version="0", name="toy", created="2026-01-01T00:00:00+00:00", status="faster", plan=[],
        plan_name="original", form=model.form.value, executes_native_code=model.form is Form.AOT_INDUCTOR,
        accepts="x", proved_on_shapes=[[[2, 4]]], machine=detect().to_json(), versions={}, speed={}, quality={},
        golden=Golden(**recorded), files={},
    )  # fmt: skip
    save.seal(work / "staged", manifest, {"results.json": "{}\n", "README.md": "toy\n"})
    save.publish(work / "staged", folder)
    return folder


def copy(folder: Path, to: Path) -> Path:
    """An artifact of one's own to spoil."""
    shutil.copytree(folder, to)
    return to


def edit_json(path: Path, change: Callable[[Any], object]) -> None:
    """Change what a JSON file holds."""
    node = json.loads(path.read_text())
    change(node)
    path.write_text(json.dumps(node))


def edit_manifest(folder: Path, **changes: Any) -> None:
    """Change fields of the manifest."""
    edit_json(folder / "manifest.json", lambda node: node.update(changes))


def reseal(folder: Path) -> None:
    """Make every digest right again: digests protect against damage, not against malice."""
    contents = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }
    files = {n: {"sha256": hashlib.sha256(b).hexdigest(), "bytes": len(b)} for n, b in contents.items()}
    edit_manifest(folder, files=files)


def edit_members(
    path: Path, change: Callable[[dict[str, bytes]], object], compression: int = zipfile.ZIP_STORED
) -> None:
    """Change the members of a zip archive."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    change(members)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def edit_header(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the header of a safetensors file; the tensors' bytes stay."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
