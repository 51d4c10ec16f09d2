"""Model files with places outside, entities, code or bombs in them: .onnx, OpenVINO's .xml, .keras."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attacks.forging import copy, edit_members, reseal
from vivace.artifact.load import load
from vivace.core.errors import ArtifactError, UsageError
from vivace.runtimes import source
from vivace.runtimes.onnx_graph import external_files

onnx = pytest.importorskip("onnx")
SECRET = b"\x00\x00\x80?" * 12
Elsewhere = Callable[[Path], str]


def external(tensor: Any, location: str) -> None:
    """The tensor's bytes are said to lie in a file."""
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="length", value="48")


def in_weight(model: Any, location: str) -> None:
    external(model.graph.initializer[0], location)


def in_attribute(model: Any, location: str) -> None:
    weight = model.graph.initializer.pop()
    external(weight, location)
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["w"], value=weight))


def in_subgraph(model: Any, location: str) -> None:
    weight = model.graph.initializer.pop()
    external(weight, location)
    port = onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [4, 3])
    branch = onnx.helper.make_graph([], "b", [], [port], [weight])
    yes = onnx.helper.make_tensor("v", onnx.TensorProto.BOOL, [], [True])
    model.graph.node.insert(0, onnx.helper.make_node("If", ["c"], ["w"], then_branch=branch, else_branch=branch))
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["c"], value=yes))


def in_function(model: Any, location: str) -> None:
    weight = model.graph.initializer.pop()
    external(weight, location)
    nodes = [onnx.helper.make_node("Constant", [], ["w"], value=weight)]
    opsets = [onnx.helper.make_opsetid("", 18)]
    model.functions.append(onnx.helper.make_function("f", "F", [], ["w"], nodes, opsets))
    model.graph.node.insert(0, onnx.helper.make_node("F", [], ["w"], domain="f"))
    model.opset_import.append(onnx.helper.make_opsetid("f", 1))


def outside(folder: Path) -> str:
    (folder.parent / "secret").write_bytes(SECRET)
    return "../secret"


def absolute(folder: Path) -> str:
    (folder.parent / "secret").write_bytes(SECRET)
    return str(folder.parent / "secret")


def linked(folder: Path) -> str:
    (folder.parent / "secret").write_bytes(SECRET)
    (folder / "weights").symlink_to(folder.parent / "secret")
    return "weights"


def in_a_folder(folder: Path) -> str:
    (folder / "below").mkdir()
    (folder / "below" / "weights").write_bytes(SECRET)
    return "below/weights"


def missing(folder: Path) -> str:
    return "nothing"


def in_memory(folder: Path) -> str:
    return "*/_ORT_MEM_ADDR_/*"


@pytest.mark.parametrize("where", [in_weight, in_attribute, in_subgraph, in_function])
@pytest.mark.parametrize("elsewhere", [outside, absolute, linked, in_a_folder, missing, in_memory])
def test_weights_that_an_onnx_file_keeps_elsewhere_are_refused(
    honest: dict[str, Path], tmp_path: Path, where: Callable[[Any, str], None], elsewhere: Elsewhere
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / "model.onnx"
    model = onnx.load(str(honest["onnx"] / "program" / "model.onnx"))
    where(model, elsewhere(folder))
    path.write_bytes(model.SerializeToString())

    with pytest.raises(UsageError, match=r"model\.onnx keeps weights in .*allowed is a plain file in the same folder"):
        source.open_source(path)


def test_an_artifacts_onnx_file_with_weights_elsewhere_is_refused_sealed_again(
    honest: dict[str, Path], tmp_path: Path
) -> None:
    folder = copy(honest["onnx"], tmp_path / "fast")
    (tmp_path / "secret").write_bytes(SECRET)
    path = folder / "program" / "model.onnx"
    model = onnx.load(str(path))
    in_weight(model, "../../secret")
    path.write_bytes(model.SerializeToString())
    reseal(folder)

    with pytest.raises(ArtifactError, match=r"model\.onnx keeps weights in '../../secret'"):
        load(folder)


def test_weights_beside_an_onnx_file_are_allowed(honest: dict[str, Path], tmp_path: Path) -> None:
    model = onnx.load(str(honest["onnx"] / "program" / "model.onnx"))
    (tmp_path / "weights").write_bytes(model.graph.initializer[0].raw_data)
    in_weight(model, "weights")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())

    source.open_source(tmp_path / "m.onnx")

    assert external_files(tmp_path / "m.onnx") == [tmp_path / "weights"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: b"", "cannot open"), (lambda data: data[: len(data) // 2], "cannot open"),
        (lambda data: b"location" * 100, "is no readable ONNX file"), (lambda data: b"\xff" * 1000, "cannot open"),
        (lambda data: data.replace(b"Relu", b"Evil"), "cannot open"),
        (lambda data: data.replace(b"output", b"out\xeeut"), "cannot open"),
        (lambda data: data.replace(b"MatMul", b"MatMu\x00"), "cannot open"),
    ],
)  # fmt: skip
def test_a_damaged_onnx_file_is_refused(
    honest: dict[str, Path], tmp_path: Path, change: Callable[[bytes], bytes], reason: str
) -> None:
    folder = copy(honest["onnx"], tmp_path / "fast")
    path = folder / "program" / "model.onnx"
    path.write_bytes(change(path.read_bytes()))
    reseal(folder)

    with pytest.raises(ArtifactError, match=rf"{reason}|model\.onnx"):
        load(folder)


XXE = '<!DOCTYPE net [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
LAUGHTER = "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 12))
LAUGHS = f"<!DOCTYPE net [<!ENTITY a0 'ha'>{LAUGHTER}]>"
DEEP = "<a>" * 50_000 + "</a>" * 50_000


def xml(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (xml('<?xml version="1.0"?>', '<?xml version="1.0"?>' + XXE), "declares a document type"),
        (xml('<?xml version="1.0"?>', '<?xml version="1.0"?>' + LAUGHS), "declares a document type"),
        (xml('size="48"', 'size="4800000000"'), "model.xml"),
        (xml('offset="0"', 'offset="4800000000"'), "model.xml"),
        (xml('offset="0"', 'offset="-48"'), "model.xml"),
        (xml('offset="0"', 'offset="18446744073709551600"'), "model.xml"),
        (xml('shape="4, 3"', 'shape="4000000, 3000000"'), "model.xml"),
        (xml('type="ReLU" version="opset1"', 'type="Evil" version="extension"'), "model.xml"),
        (xml('type="ReLU" version="opset1"', 'type="ReLU" version="evil.so"'), "model.xml"),
        (xml('type="MatMul"', 'type="Custom"'), "model.xml"),
        (xml('from-layer="2"', 'from-layer="3"'), "model.xml"),
        (xml('to-layer="4"', 'to-layer="4000"'), "model.xml"),
        (lambda text: text[: len(text) // 2], "model.xml"),
        (lambda text: "", "model.xml"),
        (lambda text: "\x00" * 100, "model.xml"),
    ],
)
def test_a_hostile_openvino_file_is_refused(
    honest: dict[str, Path], tmp_path: Path, change: Callable[[str], str], reason: str
) -> None:
    folder = copy(honest["openvino"], tmp_path / "fast")
    path = folder / "program" / "model.xml"
    path.write_text(change(path.read_text()))
    reseal(folder)

    with pytest.raises(
        ArtifactError, match=reason.replace("model.xml", r"model\.xml|golden call|program cannot be used")
    ):
        load(folder)


def test_openvino_reads_deep_nesting_without_a_stack(honest: dict[str, Path], tmp_path: Path) -> None:
    folder = copy(honest["openvino"], tmp_path / "fast")
    path = folder / "program" / "model.xml"
    path.write_text(path.read_text().replace("<layers>", "<layers>" + DEEP))
    reseal(folder)

    load(folder)


def test_openvino_weights_that_are_too_short_or_not_there_are_refused(honest: dict[str, Path], tmp_path: Path) -> None:
    folder = copy(honest["openvino"], tmp_path / "fast")
    path = folder / "program" / "model.bin"
    path.write_bytes(path.read_bytes()[:20])
    reseal(folder)
    with pytest.raises(ArtifactError, match=r"model\.xml"):
        load(folder)

    path.unlink()
    reseal(folder)
    with pytest.raises(ArtifactError, match=r"lacks model\.bin"):
        load(folder)


@pytest.fixture(scope="session")
def keras_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An honest .keras file."""
    os.environ["KERAS_BACKEND"] = "torch"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keras = pytest.importorskip("keras")
        path = tmp_path_factory.mktemp("keras") / "honest.keras"
        keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)]).save(path)
    return path


TOUCH = "import os, pathlib; pathlib.Path(os.environ['CANARY']).touch()"


def with_layer(node: dict[str, Any]) -> Callable[[dict[str, bytes]], None]:
    """The last layer replaced by another one."""

    def edit(members: dict[str, bytes]) -> None:
        config = json.loads(members["config.json"])
        layers = config["config"]["layers"]
        layers[-1] = {**layers[-1], **node}
        members["config.json"] = json.dumps(config).encode()

    return edit


def lambda_layer() -> dict[str, Any]:
    import base64
    import marshal

    code = base64.b64encode(marshal.dumps(compile(f"exec({TOUCH!r})", "x", "eval"))).decode()
    function = {"class_name": "__lambda__", "config": {"code": code, "defaults": None, "closure": None}}
    return {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "l", "function": function}}


def from_module(module: str, name: str, config: object) -> dict[str, Any]:
    return {"module": module, "class_name": name, "config": config, "registered_name": name}


def pickled_weights(members: dict[str, bytes]) -> None:
    import numpy as np

    class Payload:
        def __reduce__(self) -> Any:
            return (exec, (TOUCH,))

    del members["model.weights.h5"]
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.savez(buffer, allow_pickle=True, weights=np.array([Payload()], dtype=object))
    members["model.weights.npz"] = buffer.getvalue()


def external_weights(members: dict[str, bytes]) -> None:
    """Weights that HDF5 is to read from another file."""
    import h5py

    buffer = io.BytesIO(members["model.weights.h5"])
    with h5py.File(buffer, "r+") as file:
        place = next(name for name in _datasets(file) if name.endswith("/0"))
        del file[place]
        file.create_dataset(place, shape=(4, 3), dtype="float32", external=[("/proc/self/environ", 0, 48)])
    members["model.weights.h5"] = buffer.getvalue()


def _datasets(file: Any) -> list[str]:
    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) if hasattr(item, "shape") else None)
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "edit",
    [
        with_layer(lambda_layer()),
        with_layer(from_module("builtins", "exec", {"source": TOUCH})),
        with_layer(from_module("os", "system", {"command": 'touch "$CANARY"'})),
        with_layer(from_module("subprocess", "Popen", {"args": ["sh", "-c", 'touch "$CANARY"']})),
        with_layer(from_module("keras.config", "enable_unsafe_deserialization", {})),
        with_layer(from_module("keras.utils", "get_file", {"fname": "x", "origin": "file:///etc/passwd"})),
        with_layer({"config": {"name": "d", "units": 3, "activation": from_module("builtins", "exec", TOUCH)}}),
        with_layer({"config": {"name": "d", "units": 10**12}}),
        with_layer({"config": None}),
        pickled_weights,
        external_weights,
        lambda members: members.update({"config.json": b"[" * 100_000}),
        lambda members: members.update({"config.json": b"{}"}),
        lambda members: members.pop("config.json"),
        lambda members: members.pop("model.weights.h5"),
        lambda members: members.update({"model.weights.h5": members["model.weights.h5"][:1000]}),
    ],
)
def test_a_keras_file_with_code_or_nonsense_in_it_is_refused_and_nothing_runs(
    keras_file: Path, tmp_path: Path, canary: Path, edit: Callable[[dict[str, bytes]], object]
) -> None:
    path = tmp_path / "m.keras"
    shutil.copyfile(keras_file, path)
    edit_members(path, edit)

    with pytest.raises(UsageError, match=r"Keras cannot open .*m\.keras"):
        source.open_source(path)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "name", ["../escape", "/etc/escape", "assets/../../escape", "lib/x.so", "evil.pkl", "assets\\x"]
)
def test_a_keras_file_with_a_member_that_keras_does_not_write_is_refused(
    keras_file: Path, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "m.keras"
    shutil.copyfile(keras_file, path)
    edit_members(path, lambda members: members.update({name: pickle.dumps("x")}))

    with pytest.raises(UsageError, match="which Keras does not write"):
        source.open_source(path)


def test_a_keras_file_that_unpacks_to_far_more_than_it_has_is_refused(keras_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    shutil.copyfile(keras_file, path)
    edit_members(path, lambda members: members.update({"assets/zeros": bytes(100 << 20)}), zipfile.ZIP_DEFLATED)

    with pytest.raises(UsageError, match="unpacks to"):
        source.open_source(path)


def test_an_honest_keras_file_opens(keras_file: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert source.open_source(keras_file)
