"""Hostile .pt2 files are refused before anything in them runs."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from runtimes.models import mlp
from vivace.core.errors import ArtifactError
from vivace.core.program import Form
from vivace.runtimes import pt2, store
from vivace.runtimes.capture import capture

Members = dict[str, bytes]


class Payload:
    """Leaves a trace when it is unpickled."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("unpickled"),))


def _edited(path: Path, edit: Callable[[Members], None], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    edit(members)
    with zipfile.ZipFile(path, "w", compression) as archive:
        [archive.writestr(name, content) for name, content in members.items()]
    return path


def _pickled_weight(members: Members) -> None:
    name = "model/data/weights/model_weights_config.json"
    config = json.loads(members[name])
    first = next(iter(config["config"].values()))
    first["use_pickle"] = True
    members[name] = json.dumps(config).encode()
    members["model/data/weights/weight_0"] = pickle.dumps(Payload())


def _pickled_inputs(members: Members) -> None:
    buffer = io.BytesIO()
    torch.save(((Payload(),), {}), buffer)
    members["model/data/sample_inputs/model.pt"] = buffer.getvalue()


def _replaced(old: str, new: str) -> Callable[[Members], None]:
    def edit(members: Members) -> None:
        text = members["model/models/model.json"].decode()
        assert old in text
        members["model/models/model.json"] = text.replace(old, new).encode()

    return edit


def _spec_with_a_hidden_word(members: Members) -> None:
    """A class that the tree specification asks for, its keyword written with an escape inside JSON inside JSON."""
    graph = json.loads(members["model/models/model.json"])
    call = graph["graph_module"]["module_call_graph"][0]["signature"]
    context = json.dumps({"__enum__": True, "fqn": "antigravity:X", "name": "Y"}).replace("__enum__", "\\u005f_enum__")
    call["in_spec"] = json.dumps([1, {"type": "builtins.dict", "context": context, "children_spec": []}])
    members["model/models/model.json"] = json.dumps(graph).encode()


def _added_argument(argument: dict[str, Any]) -> Callable[[Members], None]:
    def edit(members: Members) -> None:
        graph = json.loads(members["model/models/model.json"])
        node = graph["graph_module"]["graph"]["nodes"][-1]
        node["inputs"].append({"name": "func", "arg": argument, "kind": 1})
        members["model/models/model.json"] = json.dumps(graph).encode()

    return edit


def _added(name: str) -> Callable[[Members], None]:
    return lambda members: members.update({name: pickle.dumps(Payload())})


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.pt2"
    pt2.save(capture(mlp(), (torch.randn(2, 784),)).model.program, path)
    return path


def test_our_own_file_has_no_pickled_member_and_loads(stored: Path) -> None:
    with zipfile.ZipFile(stored) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}

    assert sizes["model/data/sample_inputs/model.pt"] == 0
    assert pt2.load(stored).state_dict


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_pickled_weight, "pickled"),
        (_pickled_inputs, "keeps its example inputs as a pickle"),
        (_added("model/data/weights/model.pt"), "not part of a plain exported program"),
        (_added("model/data/constants/custom_obj_0"), "not part of a plain exported program"),
        (_added("model/../../escape"), "not part of a plain exported program"),
        (_added("/etc/absolute"), "not one .pt2 archive"),
        (_replaced("torch.ops.aten.relu.default", "torch.os.system"), "the operator 'torch.os.system'"),
        (_replaced("torch.ops.aten.relu.default", "torch.ops.load_library"), "the operator"),
        (_replaced("torch.ops.aten.relu.default", "torch.ops.aten.from_file.default"), "the operator"),
        (_replaced('"relu"', '"relu=open(1)"'), "the name 'relu=open"),
        (_replaced("Symbol(", "__import__('os').system("), "the expression"),
        (_replaced("Symbol(", "eval("), "the expression"),
        (_spec_with_a_hidden_word, "the class"),
        (_replaced('"torch.ops.aten.relu.default"', '"torch.ops.inductor.anything"'), "the operator"),
        (_added_argument({"as_operator": "torch.ops.aten.from_file.default"}), "the operator"),
    ],
)
def test_a_hostile_member_is_refused_and_never_runs(
    stored: Path, edit: Callable[[Members], None], message: str
) -> None:
    _edited(stored, edit)

    with pytest.raises(ArtifactError, match=message):
        pt2.load(stored)

    assert not Path("unpickled").exists()


def test_guards_that_a_file_brings_are_never_compiled(stored: Path) -> None:
    def edit(members: Members) -> None:
        graph = json.loads(members["model/models/model.json"])
        graph["guards_code"] = ["__import__('pathlib').Path('unpickled').touch() is None"]
        members["model/models/model.json"] = json.dumps(graph).encode()

    program = pt2.load(_edited(stored, edit))
    program.module(check_guards=False)(torch.randn(2, 784))

    assert not Path("unpickled").exists()


def test_an_archive_with_two_directories_is_refused(stored: Path) -> None:
    whole = stored.read_bytes()
    stored.write_bytes(whole[:-22] + b"x" * 64 + whole[-22:])

    with pytest.raises(ArtifactError, match="directory"):
        pt2.load(stored)


def test_a_compressed_archive_is_refused(stored: Path) -> None:
    _edited(stored, lambda members: None, zipfile.ZIP_DEFLATED)

    with pytest.raises(ArtifactError, match="encrypted or compressed"):
        pt2.load(stored)


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.pt2").write_bytes(b"not a zip")

    with pytest.raises(ArtifactError, match=r"not a readable \.pt2 file"):
        pt2.load(tmp_path / "m.pt2")


def test_plain_example_inputs_of_a_users_file_are_allowed(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(mlp(), (torch.randn(2, 784),)), tmp_path / "m.pt2")

    assert pt2.load(tmp_path / "m.pt2").example_inputs is not None


@pytest.mark.parametrize(
    ("form", "options"),
    [
        (Form.INDUCTOR, {"cpp.cxx": "./evil"}),
        (Form.INDUCTOR, {"freezing": "yes"}),
        (Form.OPENVINO, {"CACHE_DIR": "/tmp"}),
        (Form.NATIVE, {"compiler": "./evil"}),
        (Form.NATIVE, {"kept": 3}),
        (Form.TORCH, {"freezing": True}),
    ],
)
def test_a_switch_that_vivace_does_not_set_is_refused(tmp_path: Path, form: Form, options: dict[str, Any]) -> None:
    model = capture(mlp(), (torch.randn(2, 784),)).model
    store.save(model, tmp_path / "program")
    note = json.loads((tmp_path / "program" / "program.json").read_text())
    note["form"], note["settings"]["options"] = form.value, options
    (tmp_path / "program" / "program.json").write_text(json.dumps(note))

    with pytest.raises(ArtifactError, match="sets the option"):
        store.load(tmp_path / "program")
