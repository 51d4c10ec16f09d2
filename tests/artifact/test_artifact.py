"""An artifact loads as the model it was made from, is replaced whole, and leaves nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from artifact.conftest import make, network
from vivace.artifact import load as loading
from vivace.artifact import save
from vivace.artifact.load import ArtifactWarning, load
from vivace.artifact.manifest import read_manifest
from vivace.core.errors import CallError, DiskFull, EnvironmentFault, UsageError
from vivace.core.machine import Machine


def test_a_loaded_artifact_answers_like_the_original_on_any_batch_size(artifact: Path) -> None:
    x = torch.randn(11, 6)

    answer = load(artifact)(x)

    torch.testing.assert_close(answer, network()(x))


def test_a_call_outside_what_it_accepts_is_a_clear_error(artifact: Path) -> None:
    with pytest.raises(CallError, match=r"has shape \[2, 7\]; allowed is \[any, 6\]"):
        load(artifact)(torch.randn(2, 7))


def test_the_manifest_lists_every_file_with_its_digest(artifact: Path) -> None:
    names = {p.relative_to(artifact).as_posix() for p in artifact.rglob("*") if p.is_file()} - {"manifest.json"}

    assert set(read_manifest(artifact).files) == names


def test_nothing_in_an_artifact_is_pickled(artifact: Path) -> None:
    starts = [path.read_bytes()[:2] for path in artifact.rglob("*") if path.is_file()]

    assert not any(start[:1] == b"\x80" for start in starts)


def test_another_machine_is_pointed_out_and_the_answers_still_checked(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Machine("Another Processor", "x86_64", (), 64, 64, 1 << 30, "Linux")
    monkeypatch.setattr(loading, "detect", lambda: other)

    with pytest.warns(ArtifactWarning, match="this is Another Processor with 64"):
        load(artifact)


def test_publishing_replaces_an_artifact_whole_and_an_open_file_stays_valid(artifact: Path, tmp_path: Path) -> None:
    before = (artifact / "README.md").open()
    shutil.rmtree(tmp_path / "work")

    make(artifact, tmp_path / "work")

    assert before.read() == "toy\n"
    before.close()
    load(artifact)
    assert sorted(p.name for p in artifact.parent.iterdir()) == ["fast", "work"]


def test_a_full_disk_leaves_the_previous_artifact_intact(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    shutil.rmtree(tmp_path / "work")
    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(DiskFull, match="free some space"):
        make(artifact, tmp_path / "work")

    monkeypatch.undo()
    load(artifact)


@pytest.mark.parametrize("place", ["a file", "a folder with other things", "a link"])
def test_a_destination_that_is_something_else_is_refused_before_any_work(tmp_path: Path, place: str) -> None:
    out = tmp_path / "out"
    {
        "a file": lambda: out.write_text("mine"),
        "a folder with other things": lambda: (out.mkdir(), (out / "mine.txt").write_text("mine")),
        "a link": lambda: out.symlink_to(tmp_path),
    }[place]()

    with pytest.raises(UsageError, match="give a new path, an empty folder or an artifact to replace"):
        save.check_destination(out)


def test_a_file_in_the_way_of_a_destination_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")

    with pytest.raises(UsageError, match=r"out \(--out\) is .*file/x/y, but .*/file is a file, so no folder"):
        save.check_destination(tmp_path / "file" / "x" / "y")


def test_a_folder_without_permission_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *arguments: False)

    with pytest.raises(EnvironmentFault, match="permission denied"):
        save.check_destination(tmp_path / "fast")


def test_without_an_atomic_exchange_the_previous_artifact_is_moved_aside_and_removed(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(save, "_exchange", lambda one, other: False)
    shutil.rmtree(tmp_path / "work")

    make(artifact, tmp_path / "work")

    assert load(artifact)(torch.zeros(1, 6)).shape == (1, 3)
    assert not [p for p in tmp_path.iterdir() if "previous" in p.name]


def test_an_artifact_of_native_code_needs_the_users_trust(artifact: Path) -> None:
    data = json.loads((artifact / "manifest.json").read_text())
    data["executes_native_code"] = True
    (artifact / "manifest.json").write_text(json.dumps(data))

    with pytest.raises(loading.ArtifactError, match="trust=True"):
        load(artifact)
    load(artifact, trust=True)


def test_the_golden_check_catches_a_program_that_computes_something_else(artifact: Path) -> None:
    manifest = read_manifest(artifact)
    strict = manifest.golden.model_copy(update={"tolerance": -1.0})
    text = manifest.model_copy(update={"golden": strict}).model_dump_json()
    (artifact / "manifest.json").write_text(text)

    with pytest.raises(loading.ArtifactError, match=r"golden call 0 .* is off by"):
        load(artifact)
