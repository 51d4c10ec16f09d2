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
from vivace.runtimes import pt2
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
    ],
)
def test_a_hostile_member_is_refused_and_never_runs(
    stored: Path, edit: Callable[[Members], None], message: str
) -> None:
    _edited(stored, edit)

    with pytest.raises(ArtifactError, match=message):
        pt2.load(stored)

    assert not Path("unpickled").exists()


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
