"""The manifest: what an artifact is, every file's digest, where it was proved and what the proof said."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vivace.core.documents import strict_json
from vivace.core.errors import ArtifactError
from vivace.core.workload import MOST_SHAPES

SCHEMA_VERSION: Literal[1] = 1
MANIFEST = "manifest.json"
PROGRAM = "program"
GOLDEN_CALLS = "golden"
GOLDEN_OUTPUTS = "golden-outputs.safetensors"
_CALLS = ("calls.json", "calls.safetensors")
"""What `data.samples` writes into a folder of calls."""
MAX_MANIFEST_BYTES = strict_json.MOST_BYTES
TEXTS = ("results.json", "report.html", "README.md")
"""What lies beside the program and its golden calls: for people, and for other tools."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class FileEntry(_Model):
    """One file: its SHA-256 in hexadecimal and its size."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class Golden(_Model):
    """The calls that are replayed at load. `tolerance`: largest allowed error, as a share of the largest output."""

    calls: int = Field(ge=1, le=MOST_SHAPES)
    tolerance: float = Field(le=1.0)


class PlanStep(_Model):
    """One technique of the plan: its name and every setting. It is told to people; loading looks up no technique."""

    technique: str
    settings: dict[str, Any]


class Manifest(_Model):
    """manifest.json. `files` lists every other file; a file that is not listed makes the artifact invalid.

    `batch_invariant` says whether a sample's answer was seen to be the same alone and among others; None where nobody
    looked, as in artifacts of before this key, or where the original itself depends on the batch.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    vivace_version: str
    name: str
    created: str
    status: str
    plan: list[PlanStep]
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
    batch_invariant: bool | None = None
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
        with path.open("rb") as file:
            node = strict_json.load(file)
        _check_version(node)
        return Manifest.model_validate(node)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        reason = f"{where[:200]}: {first['msg']}; it is damaged or from another version of Vivace"
    except (OSError, ValueError) as error:
        reason = str(error)
    raise ArtifactError(f"{path} is not a manifest of schema {SCHEMA_VERSION}: {reason}")


def _check_version(node: Any) -> None:
    schema = node.get("schema_version") if isinstance(node, dict) else None
    if type(schema) is int and schema > SCHEMA_VERSION:
        by = str(node.get("vivace_version"))[:40]
        raise ValueError(
            f"it has schema {schema}, from a newer Vivace ({by!r}); update Vivace, or make the artifact again here"
        )
    if type(schema) is not int or schema != SCHEMA_VERSION:
        raise ValueError(f"schema_version is {str(schema)[:40]!r}; allowed is {SCHEMA_VERSION}")


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
        if path.is_file():
            if path.stat().st_nlink > 1:
                raise ArtifactError(
                    f"{path} has several hard links, so it could be changed from elsewhere; copy the "
                    "artifact to a folder of its own"
                )
            found[name] = path
    check_names(found, str(folder))
    found.pop(MANIFEST, None)
    return found


def check_names(names: Iterable[str], where: str) -> None:
    """Raise ArtifactError for a file that no artifact has: with a name that leads out of it, that means another file
    on another system, or that has no place in it."""
    seen: dict[str, str] = {}
    for name in names:
        path = PurePosixPath(name)
        if not name.isprintable() or "\\" in name or path.is_absolute() or ".." in path.parts or str(path) != name:
            raise ArtifactError(f"{where} names the file {name!r}; allowed are plain paths inside the artifact")
        other = seen.setdefault(unicodedata.normalize("NFKC", name).casefold(), name)
        if other != name:
            raise ArtifactError(
                f"{where} has both {other!r} and {name!r}, which are one file on some systems; allowed is one of them"
            )
        if not _has_place(path):
            raise ArtifactError(
                f"{where} holds {name!r}; an artifact holds {PROGRAM}/, {GOLDEN_CALLS}/, {GOLDEN_OUTPUTS}, {MANIFEST}, "
                f"{', '.join(TEXTS)} only"
            )


def _has_place(path: PurePosixPath) -> bool:
    if len(path.parts) == 1:
        return path.name in (MANIFEST, GOLDEN_OUTPUTS, *TEXTS)
    return path.parent.as_posix() == PROGRAM or (path.parent.as_posix() == GOLDEN_CALLS and path.name in _CALLS)
