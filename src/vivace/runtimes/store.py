"""The program folder: a model in any form, written beside and renamed, and opened again as a callable program."""

from __future__ import annotations

import errno
import functools
import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vivace.core.documents import strict_json
from vivace.core.errors import ArtifactError, DiskFull, NotApplicable
from vivace.core.layer import Fused, StoredWeight
from vivace.core.program import Form, Model, Settings
from vivace.core.signature import Signature
from vivace.devices.disk import let_others_read
from vivace.runtimes import aot, eager, inductor, instances, null, onnx_session, openvino_session, pt2
from vivace.runtimes.calls import torch_dtype
from vivace.runtimes.graphs import plain
from vivace.runtimes.lanes import run as lanes
from vivace.runtimes.native import session as native_session
from vivace.runtimes.onnx_graph import external_files
from vivace.runtimes.program import Program
from vivace.runtimes.settings import heap, padding
from vivace.runtimes.xla import layout, stablehlo
from vivace.runtimes.xla import session as xla_session

SCHEMA = 1
PROGRAM_JSON = "program.json"
EXAMPLE = "example.safetensors"
_RUNTIMES = {
    Form.TORCH: eager.load,
    Form.INDUCTOR: inductor.load,
    Form.AOT_INDUCTOR: aot.load,
    Form.ONNX: onnx_session.load,
    Form.OPENVINO: openvino_session.load,
    Form.XLA: xla_session.load,
    Form.NATIVE: native_session.load,
    Form.NULL: null.load,
}
_INDUCTOR = {"freezing": bool, "max_autotune": bool} | {name: type(value) for name, value in inductor.UNFUSED.items()}
_OPTIONS: dict[Form, dict[str, type]] = {
    Form.TORCH: {lanes.OPTION: str, lanes.PARTS: int, lanes.DEVICES: str},
    Form.INDUCTOR: {**_INDUCTOR, "triton.cudagraphs": bool},
    Form.AOT_INDUCTOR: _INDUCTOR,
    Form.ONNX: {"allow_spinning": bool, "graph_optimization": str},
    Form.OPENVINO: {"exact_shapes": str, openvino_session.ACTIVATION_GROUP: int},
    Form.XLA: {"batches": str, layout.OPTION: str},
    Form.NATIVE: {
        native_session.PRODUCTS: str,
        native_session.KEPT: str,
        native_session.OTHERS: str,
        native_session.BRANCHES: str,
    },
}
_EXPORTED = (Form.TORCH, Form.INDUCTOR, Form.NATIVE)
_PLAIN = (Form.TORCH, Form.NATIVE)
"""Those that are run by nothing of PyTorch but its operators."""
_FILES = {
    Form.TORCH: "model.pt2",
    Form.INDUCTOR: "model.pt2",
    Form.AOT_INDUCTOR: "native.pt2",
    Form.ONNX: "model.onnx",
    Form.OPENVINO: "model.xml",
    Form.XLA: stablehlo.PROGRAM,
    Form.NATIVE: "model.pt2",
    Form.NULL: "",
}


def save(model: Model, folder: Path) -> None:
    """Write a model as a program folder, all or nothing; a folder that is there is replaced.

    Raises DiskFull, and ArtifactError when the model holds something that only pickle could write.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write(model, beside)
        _replace(beside, folder)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFull(f"no room left on the disk for {folder}; free some space or give another folder") from error
        raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def load(folder: Path, trust: bool = False) -> Program:
    """Open a program folder as a callable. Loading includes every compilation, so that calls hold none.

    Native code is loaded with `trust=True` only. Raises ArtifactError, MissingExtra, NotApplicable.
    """
    return open_model(folder, read_to_run(folder), trust)


def open_model(folder: Path, model: Model, trust: bool = False) -> Program:
    """Open what `read_model` read of a folder. Raises as `load` does."""
    if model.form is Form.AOT_INDUCTOR and not trust:
        raise ArtifactError(
            f"{folder} holds compiled native code, which runs with your rights; if you trust who made "
            "it, load it with trust=True"
        )
    in_torch = model.form in (*_EXPORTED, Form.AOT_INDUCTOR)
    if in_torch and model.settings.device != "cpu" and not _has_device(model.settings.device):
        raise NotApplicable(f"the program runs on {model.settings.device}, which PyTorch does not see here")
    open_one = _RUNTIMES[model.form]
    if model.form is Form.TORCH and model.settings.option(lanes.OPTION, ""):
        open_one = lanes.load
    if model.settings.instances > 1:
        open_one = functools.partial(instances.load, open_one)
    program = open_one(model) if model.settings.padding is None else padding.load(open_one, model)
    if model.settings.heap_bytes:
        heap.hold(model.settings.heap_bytes)
        program.on_close(heap.release)
    return program


def read_model(folder: Path) -> Model:
    """Read a program folder back as a model to go on building with. Raises ArtifactError."""
    model = describe(folder)
    return model.replace(program=_read_program(folder, model.form))


def read_to_run(folder: Path) -> Model:
    """The same to be opened only, which takes a fraction of the time where its graph lies there as plain data.

    Raises ArtifactError.
    """
    model = describe(folder)
    return model.replace(program=_read_program(folder, model.form, is_plain=_is_run_plainly(model)))


def describe(folder: Path) -> Model:
    """All that a program folder says of its model, with None for the program. Raises ArtifactError."""
    path = folder / PROGRAM_JSON
    try:
        with path.open("rb") as file:
            note = strict_json.load(file)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"there is no readable program in {folder}: {path.name}: {error}") from error
    if not isinstance(note, dict) or type(note.get("schema")) is not int or note["schema"] != SCHEMA:
        raise ArtifactError(f"{path} has another schema; this version reads {SCHEMA}")
    try:
        return _described(folder, note)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def needs_exporter(folder: Path) -> bool:
    """Whether opening a program folder takes PyTorch's reader of exported programs. Raises ArtifactError."""
    model = describe(folder)
    return model.form in _EXPORTED and not (_is_run_plainly(model) and (folder / plain.FILE).is_file())


def _is_run_plainly(model: Model) -> bool:
    """Whether nothing but its operators is needed to open it: not where it is moved, copied, padded or parted first."""
    settings = model.settings
    is_as_it_is = settings.device == "cpu" and settings.instances == 1 and settings.padding is None
    return model.form in _PLAIN and is_as_it_is and not settings.option(lanes.OPTION, "")


def _described(folder: Path, note: Mapping[str, Any]) -> Model:
    """The model of a program.json, its program apart."""
    form = Form(note["form"])
    _check_options(folder, form, note["settings"]["options"])
    signature = Signature.from_json(note["signature"])
    for spec in (*signature.inputs, *signature.outputs):
        torch_dtype(spec.dtype)
    if not all(isinstance(step, str) for step in note["lineage"]):
        raise TypeError("a lineage is of texts")
    quantized = note.get("quantized", [])
    if not isinstance(quantized, list) or not all(isinstance(layer, str) for layer in quantized):
        raise TypeError("quantized layers are texts")
    share = note.get("flops_share")
    if share is not None and (type(share) is not float or not 0 <= share < math.inf):
        raise TypeError("a share of operations is a number of 0 or more")
    return Model(
        form,
        None,
        signature,
        Settings.from_json(note["settings"]),
        tuple(note["lineage"]),
        tuple(Fused.from_json(group) for group in note.get("fused", ())),
        tuple(StoredWeight.from_json(one) for one in note.get("stored_weights", ())),
        tuple(quantized),
        share,
    )


def _has_device(name: str) -> bool:
    device = torch.device(name)
    return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()


def _check_options(folder: Path, form: Form, options: Mapping[str, Any]) -> None:
    """Refuse a switch that Vivace does not set: an engine's others can name programs to run or files to write."""
    allowed = _OPTIONS.get(form, {})
    for name, value in options.items():
        if name not in allowed or type(value) is not allowed[name]:
            raise ArtifactError(
                f"{folder / PROGRAM_JSON} sets the option {name}={value!r}; allowed for {form.value} are "
                f"{', '.join(allowed) or 'none'}"
            )


def open_program(arguments: Mapping[str, Any], payload: object | None = None) -> Program:
    """Worker entry: {"folder": path, "trust": bool} to a program."""
    return load(Path(arguments["folder"]), bool(arguments.get("trust", False)))


def _write(model: Model, folder: Path) -> None:
    if model.form in _EXPORTED:
        pt2.save(model.program, folder / _FILES[model.form])
        if model.form in _PLAIN:
            plain.write(model.program, folder / _FILES[model.form], folder / plain.FILE)
        if model.program.example_inputs is not None:
            _write_example(model.program.example_inputs[0], folder / EXAMPLE)
    elif model.form is not Form.NULL:
        _copy_files(Path(model.program), folder, _FILES[model.form])
    note = {
        "schema": SCHEMA,
        "form": model.form.value,
        "signature": model.signature.to_json(),
        "settings": model.settings.to_json(),
        "lineage": list(model.lineage),
        "fused": [group.to_json() for group in model.fused],
        "stored_weights": [one.to_json() for one in model.stored_weights],
        "quantized": list(model.quantized),
        "flops_share": model.flops_share,
    }
    (folder / PROGRAM_JSON).write_text(json.dumps(note, indent=1))


def _copy_files(source: Path, folder: Path, name: str) -> None:
    """Copy a program's file under its fixed name, with the weights that lie beside it under theirs."""
    if not source.is_file():
        raise ArtifactError(f"the program file {source} is gone")
    shutil.copyfile(source, folder / name)
    if name == "model.xml":
        shutil.copyfile(source.with_suffix(".bin"), folder / "model.bin")
    if name == stablehlo.PROGRAM:
        for kept in stablehlo.BESIDE:
            shutil.copyfile(source.with_name(kept), folder / kept)
    if name == "model.onnx":
        for beside in external_files(source):
            shutil.copyfile(beside, folder / beside.name)


def _write_example(leaves: tuple[Tensor, ...], path: Path) -> None:
    save_file({str(i): leaf.detach().cpu().contiguous().clone() for i, leaf in enumerate(leaves)}, str(path))
    let_others_read(path)


def _read_program(folder: Path, form: Form, is_plain: bool = False) -> Any:
    if form is Form.NULL:
        return None
    path = folder / _FILES[form]
    if not path.is_file():
        raise ArtifactError(f"{folder} lacks {path.name}")
    _check_beside(folder, form)
    if form not in _EXPORTED:
        return path
    program: Any = (plain.read(path, folder / plain.FILE) if is_plain else None) or pt2.load(path)
    if (folder / EXAMPLE).is_file():
        program.example_inputs = (_read_example(folder / EXAMPLE), {})
    return program


def _check_beside(folder: Path, form: Form) -> None:
    """Raise ArtifactError for a file that the form does not read, and for one that it lacks."""
    exported = {one: [EXAMPLE, *([plain.FILE] if one in _PLAIN else [])] for one in _EXPORTED}
    beside = {**exported, Form.OPENVINO: ["model.bin"]}.get(form, [])
    if form is Form.XLA:
        beside = list(stablehlo.BESIDE)
    if form is Form.ONNX:
        beside = [path.name for path in external_files(folder / _FILES[form])]
    for name in beside if form in (Form.OPENVINO, Form.XLA) else []:
        if not (folder / name).is_file():
            raise ArtifactError(f"{folder} lacks {name}")
    allowed = {PROGRAM_JSON, _FILES[form], *beside}
    for path in sorted(folder.iterdir()):
        if path.name not in allowed:
            raise ArtifactError(f"{path} is none of the files of a program of form {form.value}: {sorted(allowed)}")


def _read_example(path: Path) -> tuple[Tensor, ...]:
    try:
        leaves = load_file(str(path))
        return tuple(leaves[str(i)] for i in range(len(leaves)))
    except (SafetensorError, KeyError, OSError, ValueError, TypeError, RuntimeError) as error:
        raise ArtifactError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def _replace(beside: Path, folder: Path) -> None:
    if not folder.exists():
        beside.rename(folder)
        return
    old = folder.with_name(f"{beside.name}.old")
    folder.rename(old)
    beside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
