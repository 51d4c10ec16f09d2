"""Artifacts that somebody changed: every one is refused with a message that names the file."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from artifact.conftest import make
from vivace.artifact.load import load
from vivace.artifact.manifest import digest
from vivace.core.errors import ArtifactError


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """An honest artifact, to be spoilt."""
    return make(tmp_path / "fast", tmp_path / "work")


def change_byte(folder: Path) -> None:
    path = folder / "program" / "model.pt2"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def add_file(folder: Path) -> None:
    (folder / "program" / "extra.py").write_text("print('hello')")


def remove_file(folder: Path) -> None:
    (folder / "results.json").unlink()


def link_outside(folder: Path) -> None:
    path = folder / "README.md"
    path.unlink()
    path.symlink_to("/etc/hostname")


def hard_link(folder: Path) -> None:
    os.link(folder / "README.md", folder.parent / "other-name")


def no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def manifest_not_json(folder: Path) -> None:
    (folder / "manifest.json").write_text("{" * 100_000)


def manifest_of_the_future(folder: Path) -> None:
    edit(folder, lambda data: data.update(schema_version=99))


def manifest_with_more(folder: Path) -> None:
    edit(folder, lambda data: data.update(run_me="import os"))


def huge_manifest(folder: Path) -> None:
    with (folder / "manifest.json").open("ab") as file:
        file.truncate(1 << 30)


def edit(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Change the manifest."""
    data = json.loads((folder / "manifest.json").read_text())
    change(data)
    (folder / "manifest.json").write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (change_byte, "model.pt2 differs from its digest"),
        (add_file, "extra.py is not listed in the manifest"),
        (remove_file, "results.json is missing"),
        (link_outside, "README.md is a link"),
        (hard_link, "README.md has several hard links"),
        (no_manifest, "is not an artifact: it has no manifest.json"),
        (manifest_not_json, "is not a manifest of schema 1"),
        (manifest_of_the_future, "is not a manifest of schema 1"),
        (manifest_with_more, "is not a manifest of schema 1"),
        (huge_manifest, "allowed are"),
    ],
)
def test_a_changed_artifact_is_refused(artifact: Path, attack: Callable[[Path], None], message: str) -> None:
    attack(artifact)

    with pytest.raises(ArtifactError, match=message):
        load(artifact)


def test_a_pickled_member_is_refused_although_every_digest_is_right(artifact: Path) -> None:
    path = artifact / "program" / "model.pt2"
    with zipfile.ZipFile(path, "a") as archive:
        root = archive.namelist()[0].split("/")[0]
        archive.writestr(f"{root}/data/weights/evil.pkl", b"\x80\x02cos\nsystem\n(S'true'\ntR.")
    edit(artifact, lambda data: data["files"].update({"program/model.pt2": digest(path).model_dump()}))  # type: ignore[attr-defined]

    with pytest.raises(ArtifactError):
        load(artifact)
