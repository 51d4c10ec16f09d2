"""The user's model as it was given: a module, or a file opened as its own library would: the baseline of proofs."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vivace.core.errors import ArtifactError, UnsupportedModel, UsageError
from vivace.core.program import Form, Model, Settings
from vivace.core.signature import Signature, TensorSpec
from vivace.core.structure import Structure
from vivace.core.workload import MODEL_FILES
from vivace.runtimes import onnx_session, pt2
from vivace.runtimes.calls import example_leaves
from vivace.runtimes.onnx_graph import require

_ONNX_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bfloat16)": "bfloat16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}

_KERAS_MEMBERS = re.compile(r"metadata\.json|config\.json|model\.weights\.(h5|npz|json)|assets/(?!.*\.\.)[^\\]*")
_KERAS_EXPANSION, _KERAS_BYTES = 20, 64 << 20
"""Keras stores without compression; who packed the file again made it a few times smaller."""


def open_source(model: Any) -> Callable[..., Any]:
    """The original as a callable: the module itself in eval mode, or a file as its own library opens it.

    .onnx: ONNX Runtime with its defaults. .keras: keras.saving.load_model in safe mode, on the torch back end. .pt2:
    torch.export.load, after refusing pickled members. Raises UsageError, also for a file that is damaged or unsafe, and
    MissingExtra.
    """
    if isinstance(model, nn.Module):
        return model.eval()
    if not isinstance(model, str | Path):
        raise UsageError(
            f"the model is a {type(model).__name__}; allowed are a torch.nn.Module and a path ending in "
            f"{', '.join(MODEL_FILES)}"
        )
    path = Path(model)
    if not path.is_file():
        raise UsageError(f"there is no model file at {path}; check the path")
    if path.suffix == ".onnx":
        with _given():
            return onnx_session.load(onnx_model(path))
    return open_module(path)


@contextlib.contextmanager
def _given() -> Iterator[None]:
    """What is wrong with a file that the user gave is a UsageError: nobody said that it is an artifact."""
    try:
        yield
    except ArtifactError as error:
        raise UsageError(str(error)) from error


def device_of(model: object) -> str:
    """Where a model was given, and its calls lie: "cpu", or a CUDA device such as "cuda:0"; a file is on the CPU.

    Raises UsageError for a model that is spread over devices, or lies on one of another kind.
    """
    if not isinstance(model, nn.Module):
        return "cpu"
    found = sorted({str(tensor.device) for tensor in (*model.parameters(), *model.buffers())})
    if len(found) > 1:
        raise UsageError(f"the model lies on {' and '.join(found)}; give all of it on one device")
    if found and not found[0].startswith(("cpu", "cuda")):
        raise UsageError(f"the model lies on {found[0]}; give it on the CPU (model.cpu()) or on a CUDA device")
    return found[0] if found else "cpu"


def open_original(arguments: Mapping[str, Any], payload: object | None = None) -> Callable[..., Any]:
    """Worker entry: the baseline arm, from {"file": path} or from a module as the payload."""
    return open_source(arguments["file"] if arguments.get("file") else payload)


def open_module(path: Path) -> nn.Module:
    """A .pt2 or .keras file as a module that can be captured. Raises UsageError, MissingExtra."""
    with _given():
        if path.suffix == ".pt2":
            return pt2.load(path).module(check_guards=False)
        if path.suffix == ".keras":
            return _open_keras(path)
    raise UsageError(f"{path} cannot be opened as a module; allowed endings are .pt2 and .keras")


def onnx_model(path: Path) -> Model:
    """An .onnx file as a Model of form ONNX: its graph is kept as it is. The first input's first dimension, where it is
    free, counts samples, here and wherever the file gives another one the same name.

    Raises UsageError, MissingExtra.
    """
    with _given():
        session = onnx_session.open_session(path, Settings())
    ports = session.get_inputs()
    batch = ports[0].shape[0] if ports and ports[0].shape else None  # the name that this file gives to it
    inputs = tuple(_onnx_spec(port, path, batch) for port in ports)
    outputs = tuple(_onnx_spec(port, path, batch) for port in session.get_outputs())
    call = Structure("dict", (Structure("tensor"),) * len(inputs), tuple(spec.name for spec in inputs))
    tensor = Structure("tensor")
    answer = tensor if len(outputs) == 1 else Structure("tuple", (tensor,) * len(outputs))
    return Model(Form.ONNX, path, Signature(call, len(inputs), inputs, answer, outputs))


def example_inputs(path: Path) -> Any:
    """Inputs for a bare model file: the shapes that it declares, 2 where a dimension may vary, values from a seed.

    Floats are standard normal; integers are zeros and ones, which every vocabulary holds. Raises UsageError when the
    file declares no shapes.
    """
    if path.suffix == ".onnx":
        signature = onnx_model(path).signature
        return tuple(_filled(leaf) for leaf in example_leaves(signature))
    if path.suffix == ".keras":
        return _keras_inputs(open_module(path), path)
    with _given():
        program = pt2.load(path)
    users = set(program.graph_signature.user_inputs)
    values = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in users]
    if program.call_spec.in_spec is None or not all(isinstance(value, Tensor) for value in values):
        raise UsageError(f"{path} takes arguments that are not tensors; give one example call as inputs")
    leaves = [
        _filled(torch.zeros([int(n) if isinstance(n, int) else 2 for n in v.shape], dtype=v.dtype)) for v in values
    ]
    args, kwargs = torch.utils._pytree.tree_unflatten(leaves, program.call_spec.in_spec)
    if args and kwargs:
        raise UsageError(f"{path} takes both positional and keyword arguments; give one example call as inputs")
    return kwargs or args


def _open_keras(path: Path) -> nn.Module:
    require("keras", "keras", "opening a .keras file")
    os.environ.setdefault("KERAS_BACKEND", "torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras
    if keras.backend.backend() != "torch":
        raise UsageError(f"Keras runs on its {keras.backend.backend()} back end; set KERAS_BACKEND=torch")
    _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = keras.saving.load_model(str(path), compile=False, safe_mode=True)
    except Exception as error:  # layers of any kind read their own settings
        raise ArtifactError(f"Keras cannot open {path}: {' '.join(str(error).split())[:400]}") from error
    if not isinstance(model, nn.Module):
        raise UnsupportedModel(f"{path} holds a {type(model).__name__}, which is not a model")
    return model.eval()


def _check_archive(path: Path) -> None:
    """Raise ArtifactError for a .keras file with other members than Keras writes, or that unpacks to far more than it
    has."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise ArtifactError(
            f"Keras cannot open {path}: {error}; save it again with model.save('model.keras')"
        ) from error
    names = [member.filename for member in members]
    strange = [name for name in names if not _KERAS_MEMBERS.fullmatch(name) or names.count(name) > 1]
    if strange:
        raise ArtifactError(f"Keras cannot open {path}: it holds {strange[0]!r}, which Keras does not write, or twice")
    unpacked, most = sum(member.file_size for member in members), _KERAS_EXPANSION * path.stat().st_size + _KERAS_BYTES
    if unpacked > most:
        raise ArtifactError(
            f"Keras cannot open {path}: it unpacks to {unpacked} bytes; allowed are {most} for its size"
        )


def _keras_inputs(model: Any, path: Path) -> Any:
    try:
        specs = [(spec.shape, str(spec.dtype)) for spec in model.inputs]
    except (AttributeError, ValueError, TypeError) as error:
        raise UsageError(f"{path} declares no input shapes; give one example call as inputs") from error
    leaves = [_filled(torch.zeros([n or 2 for n in shape], dtype=getattr(torch, dtype))) for shape, dtype in specs]
    return tuple(leaves) if len(leaves) == 1 else (leaves,)


def _filled(leaf: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    if leaf.dtype.is_floating_point:
        return torch.randn(leaf.shape, generator=generator).to(leaf.dtype)
    return torch.randint(0, 2, leaf.shape, generator=generator).to(leaf.dtype)


def _onnx_spec(port: Any, path: Path, batch: Any) -> TensorSpec:
    if port.type not in _ONNX_DTYPES:
        raise UsageError(f"{path} has {port.name} of type {port.type}; allowed are {', '.join(_ONNX_DTYPES)}")
    shape = tuple(n if isinstance(n, int) and n > 0 else None for n in port.shape)
    axis = 0 if shape and shape[0] is None and port.shape[0] == batch else None
    return TensorSpec(port.name, _ONNX_DTYPES[port.type], shape, axis)
