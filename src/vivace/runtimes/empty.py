"""The empty call: a program of the same form, inputs and outputs that computes nothing, to see what calling costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vivace.core.errors import NotApplicable
from vivace.core.program import Form, Model
from vivace.core.signature import Signature, TensorSpec
from vivace.runtimes import aot, store
from vivace.runtimes.calls import example_leaves, torch_dtype
from vivace.runtimes.onnx_graph import require
from vivace.runtimes.onnx_session import input_names
from vivace.runtimes.openvino_graph import import_openvino, save_graph
from vivace.runtimes.program import Program
from vivace.runtimes.xla import stablehlo

Shapes = Sequence[Sequence[int]]
_ONNX_OPSET, _ONNX_IR = 17, 8
_ONNX_TYPES = {
    "float32": "FLOAT",
    "float64": "DOUBLE",
    "float16": "FLOAT16",
    "bfloat16": "BFLOAT16",
    "int64": "INT64",
    "int32": "INT32",
    "int16": "INT16",
    "int8": "INT8",
    "uint8": "UINT8",
    "bool": "BOOL",
}


def open_empty(arguments: Mapping[str, Any], payload: object | None = None) -> Program:
    """Worker entry: {"folder": a program folder, "inputs" and "outputs": the flat tensors' shapes, "to": a new folder}
    to an empty program. Raises NotApplicable where its form has none."""
    model = store.read_model(Path(arguments["folder"]))
    to = Path(arguments["to"])
    store.save(emptied(model, arguments["inputs"], arguments["outputs"], to / "files"), to / "program")
    return store.load(to / "program", trust=True)


def emptied(model: Model, inputs: Shapes, outputs: Shapes, folder: Path) -> Model:
    """The model with nothing left in it: it takes tensors of exactly these shapes and answers zeros that it keeps.

    Form and settings stay, so that a call is checked, handed to the runtime and answered in the same way. Files that
    the form needs are written to `folder`. Raises NotApplicable for a form that cannot be emptied, MissingExtra.
    """
    if model.settings.instances > 1:
        raise NotApplicable("the program splits each batch over copies, and an empty one has nothing to split")
    if model.form not in _EMPTY:
        raise NotApplicable(f"a program of form {model.form.value} has no empty counterpart")
    signature = _exactly(model.signature, inputs, outputs)
    return _EMPTY[model.form](Model(model.form, None, signature, model.settings), folder)


class _Zeros(nn.Module):
    """Answers the same zeros whatever it is given."""

    def __init__(self, outputs: Sequence[Tensor]) -> None:
        super().__init__()
        self._count = len(outputs)
        for number, leaf in enumerate(outputs):
            self.register_buffer(f"answer_{number}", leaf)

    def forward(self, *leaves: Tensor) -> tuple[Tensor, ...]:
        """Flat tensors in, flat tensors out."""
        return tuple(getattr(self, f"answer_{number}") for number in range(self._count))


def _torch(model: Model, folder: Path) -> Model:
    inputs = example_leaves(model.signature)
    program = torch.export.export(_Zeros(_answers(model)).eval(), tuple(inputs), strict=False)
    program.example_inputs = (tuple(inputs), {})
    return model.replace(program=program)


def _aot(model: Model, folder: Path) -> Model:
    return aot.to_aot(_torch(model, folder), folder)


def _onnx(model: Model, folder: Path) -> Model:
    require("onnx", "onnx", "writing ONNX")
    import onnx
    from onnx import helper

    def kind(spec: TensorSpec) -> int:
        return int(getattr(onnx.TensorProto, _ONNX_TYPES[spec.dtype]))

    specs = model.signature.inputs
    takes = [
        helper.make_tensor_value_info(name, kind(spec), list(spec.shape))
        for name, spec in zip(input_names(len(specs)), specs, strict=True)
    ]
    zeros, gives, nodes = [], [], []
    for number, (spec, leaf) in enumerate(zip(model.signature.outputs, _answers(model), strict=True)):
        raw = bytes(leaf.numel() * leaf.element_size())
        zeros.append(helper.make_tensor(f"zeros_{number}", kind(spec), list(spec.shape), raw, raw=True))
        gives.append(helper.make_tensor_value_info(f"answer_{number}", kind(spec), list(spec.shape)))
        nodes.append(helper.make_node("Identity", [f"zeros_{number}"], [f"answer_{number}"]))
    graph = helper.make_graph(nodes, "empty", takes, gives, zeros)
    opset = helper.make_opsetid("", _ONNX_OPSET)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=_ONNX_IR), str(path))
    return model.replace(program=path)


def _openvino(model: Model, folder: Path) -> Model:
    openvino = import_openvino()
    from openvino import opset13 as operators

    takes = [operators.parameter(list(leaf.shape), leaf.numpy().dtype) for leaf in example_leaves(model.signature)]
    gives = [operators.result(operators.constant(leaf.numpy())) for leaf in _answers(model)]
    return model.replace(program=save_graph(openvino.Model(gives, takes, "empty"), folder / "graph"))


def _xla(model: Model, folder: Path) -> Model:
    return stablehlo.to_xla(_torch(model.replace(form=Form.TORCH), folder), folder / "graph")


_EMPTY: dict[Form, Callable[[Model, Path], Model]] = {
    Form.TORCH: _torch,
    Form.INDUCTOR: _torch,
    Form.NATIVE: _torch,
    Form.AOT_INDUCTOR: _aot,
    Form.ONNX: _onnx,
    Form.OPENVINO: _openvino,
    Form.XLA: _xla,
}


def _answers(model: Model) -> list[Tensor]:
    return [
        torch.zeros([n or 0 for n in spec.shape], dtype=torch_dtype(spec.dtype)) for spec in model.signature.outputs
    ]


def _exactly(signature: Signature, inputs: Shapes, outputs: Shapes) -> Signature:
    def fixed(specs: Sequence[TensorSpec], shapes: Shapes) -> tuple[TensorSpec, ...]:
        return tuple(dataclasses.replace(spec, shape=tuple(shape)) for spec, shape in zip(specs, shapes, strict=True))

    return dataclasses.replace(
        signature, inputs=fixed(signature.inputs, inputs), outputs=fixed(signature.outputs, outputs)
    )
