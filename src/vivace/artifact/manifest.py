"""The manifest: what an artifact is, every file's digest, where it was proved and what the proof said."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from vivace.core.errors import ArtifactError

SCHEMA_VERSION: Literal[1] = 1
MANIFEST = "manifest.json"
PROGRAM = "program"
GOLDEN_CALLS = "golden"
GOLDEN_OUTPUTS = "golden-outputs.safetensors"
MAX_MANIFEST_BYTES = 16 << 20


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(_Model):
    """One file: its SHA-256 in hexadecimal and its size."""

    sha256: str
    bytes: int


class Golden(_Model):
    """The calls that are replayed at load. `tolerance`: largest allowed error, as a share of the largest output."""

    calls: int
    tolerance: float


class Manifest(_Model):
    """manifest.json. `files` lists every other file; a file that is not listed makes the artifact invalid."""

    schema_version: Literal[1] = SCHEMA_VERSION
    vivace_version: str
    name: str
    created: str
    status: str
    plan: list[dict[str, Any]]
    plan_name: str
    form: str
    executes_native_code: bool
    accepts: str
    proved_on_shapes: list[list[list[int]]]
    machine: dict[str, Any]
    versions: dict[str, str]
    speed: dict[str, Any]
    quality: dict[str, Any]
    golden: Golden
    files: dict[str, FileEntry]


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an artifact. Raises ArtifactError when there is none or it is not one of ours."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ArtifactError(
            f"{folder} is not an artifact: it has no {MANIFEST}; give the folder that `vivace optimize --out` wrote"
        )
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise ArtifactError(f"{path} has {path.stat().st_size} bytes; allowed are {MAX_MANIFEST_BYTES}")
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ArtifactError(
            f"{path} is not a manifest of schema {SCHEMA_VERSION}: {where}: {first['msg']}; "
            "it is damaged or from another version of Vivace"
        ) from None


def digest(path: Path) -> FileEntry:
    """The digest and size of one file."""
    with path.open("rb") as file:
        return FileEntry(sha256=hashlib.file_digest(file, "sha256").hexdigest(), bytes=path.stat().st_size)


def files_of(folder: Path) -> dict[str, Path]:
    """Every file of a folder by its relative name, the manifest apart. Raises ArtifactError for links and oddities."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ArtifactError(f"{path} is a link or a special file; an artifact holds plain files only")
        if path.is_file() and name != MANIFEST:
            if path.stat().st_nlink > 1:
                raise ArtifactError(
                    f"{path} has several hard links, so it could be changed from elsewhere; copy the "
                    "artifact to a folder of its own"
                )
            found[name] = path
    return found
