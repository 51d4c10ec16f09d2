"""To form ONNX: the exported graph written as an ONNX file, converted once for all plans that share its lineage."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import mmap
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vivace.core.errors import ArtifactError, MissingExtra, NotApplicable
from vivace.core.program import Form, Model
from vivace.core.registry import is_installed
from vivace.core.work import Work
from vivace.runtimes.graphs.layers import layers_of as layers_of_graph
from vivace.runtimes.graphs.same_layers import matched, weights_of

PRODUCTS = ("Conv", "MatMul", "Gemm")
_EXTERNAL_DATA_BYTES = 1 << 30


def to_onnx(model: Model, work: Work) -> Model:
    """The model as an ONNX file under `work.folder`/onnx, checked by onnx; a model of form ONNX is returned as it is.

    Input names are the graph's; weights of 1 GiB and more lie beside the file as `model.onnx.data`. Raises MissingExtra
    and, when the graph cannot be written as ONNX, NotApplicable.
    """
    if model.form is Form.ONNX:
        return model
    if model.form is not Form.TORCH:
        raise NotApplicable(f"a program of form {model.form.value} cannot be written as ONNX")
    folder = conversion_folder(work, "onnx", model)
    path = folder / "model.onnx"
    if not path.is_file():
        _write_into(folder, lambda beside: convert(model, beside))
    return model.replace(form=Form.ONNX, program=path)


def rewritten(plain: Model, work: Work, step: str, write: Callable[[Path], None]) -> Model:
    """An ONNX model with one more step in its lineage, whose file `write` makes; once for all plans that share it."""
    model = plain.replace(lineage=(*plain.lineage, step))
    folder = conversion_folder(work, "onnx", model)
    if not (folder / "model.onnx").is_file():
        _write_into(folder, write)
    return model.replace(program=folder / "model.onnx")


def prepared(plain: Path, to: Path) -> Path:
    """The model with its constants folded, its shapes inferred and its operators fused, written to `to`: what ONNX
    Runtime advises before quantization, which sees weights only where nothing lies between them and their product. As
    it is where that fails."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    try:
        quant_pre_process(str(plain), str(to), skip_symbolic_shape=True)
    except Exception:  # it may raise anything, and quantization works without it  # noqa: BLE001
        return plain
    return to


def external_files(path: Path) -> list[Path]:
    """The files beside an ONNX file that hold its large weights. Raises ArtifactError for one that lies elsewhere.

    Every tensor counts, also those in attributes, subgraphs and functions. The place of one stands in the file under
    the key `location`, in plain text: a file without that word is not read further.
    """
    if not mentions(path, b"location"):
        return []
    require("onnx", "onnx", "reading an ONNX file")
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf has errors of its own
        raise ArtifactError(f"{path} is no readable ONNX file: {error}") from error
    names = {entry.value for entry in _entries(model) if entry.key == "location"}
    for name in sorted(names):
        beside = path.parent / name
        if not name or Path(name).name != name or "\\" in name or beside.is_symlink() or not beside.is_file():
            raise ArtifactError(f"{path} keeps weights in {name!r}; allowed is a plain file in the same folder")
    return [path.parent / name for name in sorted(names)]


def mentions(path: Path, word: bytes) -> bool:
    """Whether a file holds these bytes anywhere."""
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(word) >= 0


def _entries(message: Any) -> Iterator[Any]:
    """What every tensor of a model says about where its data lies, at any depth."""
    pending = [message]
    while pending:
        for field, value in pending.pop().ListFields():
            if field.message_type is not None:
                inner = [value] if hasattr(value, "ListFields") else list(value)
                pending += inner
                if field.name == "external_data":
                    yield from inner


def layers_of(path: Path, captured: Model) -> dict[str, str]:
    """For each product of a converted file, by its node's name, the layer of the captured graph that it came from.

    The exporter names a product node_ and the layer's own name, and loses it where it rewrites: those are found by
    their weights.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type in PRODUCTS]
    layers = {layer.name for layer in layers_of_graph(captured)}
    found = {node.name: node.name.removeprefix("node_") for node in products}
    found = {node: layer for node, layer in found.items() if layer in layers}
    unnamed = [node for node in products if node.name not in found and node.input[1] in constants]
    weights = {node.name: numpy_helper.to_array(constants[node.input[1]]) for node in unnamed}
    rest = {name: weight for name, weight in weights_of(captured.program).items() if name not in found.values()}
    return found | matched(rest, weights)


def integer_layers(written: Path, plain: Path, captured: Model) -> list[str]:
    """The layers of the captured graph that a file `written` from the converted file `plain` computes from integers:
    those that are no product of floating-point numbers there any more."""
    if captured.form is not Form.TORCH:
        return []
    import onnx

    nodes = onnx.load(str(written), load_external_data=False).graph.node
    widened = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    rounded = {node.name for node in nodes if widened.issuperset(node.input[:2])}
    left = {layer for node, layer in layers_of(written, captured).items() if node not in rounded}
    return [layer for layer in layers_of(plain, captured).values() if layer not in left]


def conversion_folder(work: Work, kind: str, model: Model) -> Path:
    """Where the conversion of a model is kept: one folder for each lineage."""
    key = hashlib.sha256("\n".join((model.form.value, *model.lineage)).encode()).hexdigest()[:16]
    return work.folder / kind / key


def require(package: str, extra: str, purpose: str) -> None:
    """Raise MissingExtra when a package is not installed."""
    if not is_installed(package):
        raise MissingExtra(package, extra, purpose)


def _write_into(folder: Path, write: Callable[[Path], None]) -> None:
    """Have `folder`/model.onnx written, all or nothing."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".converting.", dir=folder.parent))
    try:
        write(beside / "model.onnx")
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def convert(model: Model, path: Path) -> None:
    """Write an exported model as an ONNX file and check it. Raises MissingExtra, NotApplicable."""
    for package in ("onnx", "onnxscript"):
        require(package, "onnx", "writing ONNX")
    import onnx
    import torch

    try:
        with quiet():
            written = torch.onnx.export(model.program, dynamo=True, verbose=False, optimize=True)
            assert written is not None
            size = sum(value.numel() * value.element_size() for value in model.program.state_dict.values())
            written.save(str(path), external_data=size >= _EXTERNAL_DATA_BYTES)
            onnx.checker.check_model(str(path))
    except Exception as error:  # the exporter may raise anything
        told = " ".join(str(error).split())[:400]
        raise NotApplicable(f"the graph cannot be written as ONNX: {type(error).__name__}: {told}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep a converter's warnings, prints and log lines out of the user's terminal."""
    names = ("torch.onnx", "onnxscript", "onnx_ir", "openvino", "nncf")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
