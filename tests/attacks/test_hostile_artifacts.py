"""Folders that are no honest artifact: `load` refuses each, also where the attacker made every digest right again."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from attacks.forging import copy, edit_json, edit_manifest, reseal
from vivace.artifact.load import load
from vivace.artifact.manifest import Golden, Manifest
from vivace.artifact.save import seal
from vivace.core.errors import ArtifactError

Attack = Callable[[Path], object]
GOLDEN = ("golden-outputs.safetensors", "golden/calls.json", "golden/calls.safetensors")
FILES = ("README.md", *GOLDEN, "program/model.pt2", "program/program.json", "results.json")
READ = FILES[1:6]
"""Those that loading reads; the others are for people."""


def refused(folder: Path, message: str) -> None:
    """Loading says no, with this reason."""
    with pytest.raises(ArtifactError, match=message):
        load(folder)


def also_named(name: str) -> Attack:
    """The manifest lists one more file, by this name, with the digest of an empty one."""
    entry = {"sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "bytes": 0}
    return lambda folder: edit_json(folder / "manifest.json", lambda node: node["files"].update({name: entry}))


def bomb(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


@pytest.mark.parametrize(
    "name",
    ["../outside", "/etc/passwd", "program/../../outside", "program\\model.pt2", "./README.md", "golden//calls.json",
     "..", "", "a\nb", "C:\\Windows\\x"],
)  # fmt: skip
def test_a_name_that_leads_elsewhere_is_refused_and_nothing_there_is_opened(artifact: Path, name: str) -> None:
    os.mkfifo(artifact.parent / "outside")  # who opens it waits for ever
    also_named(name)(artifact)

    refused(artifact, re.escape(f"manifest.json names the file {name!r}"))


def link_file(folder: Path) -> None:
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to("/etc/hostname")


def link_folder(folder: Path) -> None:
    (folder / "golden").rename(folder.parent / "elsewhere")
    (folder / "golden").symlink_to(folder.parent / "elsewhere")


def link_manifest(folder: Path) -> None:
    (folder / "manifest.json").rename(folder.parent / "elsewhere")
    (folder / "manifest.json").symlink_to(folder.parent / "elsewhere")


def listen(folder: Path) -> None:
    here = Path.cwd()
    os.chdir(folder)  # a socket's path must be short
    try:
        socket.socket(socket.AF_UNIX).bind("socket")
    finally:
        os.chdir(here)


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (link_file, r"README\.md is a link or a special file"),
        (link_folder, "golden is a link or a special file"),
        (link_manifest, r"manifest\.json is a link or a special file"),
        (lambda folder: os.link(folder / "README.md", folder.parent / "other"), r"README\.md has several hard links"),
        (
            lambda folder: os.link(folder / "manifest.json", folder.parent / "o"),
            r"manifest\.json has several hard links",
        ),
        (lambda folder: os.mkfifo(folder / "program" / "fifo"), "fifo is a link or a special file"),
        (listen, "socket is a link or a special file"),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_links_and_special_files_are_refused(artifact: Path, attack: Attack, message: str) -> None:
    attack(artifact)

    refused(artifact, message)


def test_a_manifest_that_is_no_plain_file_is_not_waited_for(artifact: Path) -> None:
    (artifact / "manifest.json").unlink()
    os.mkfifo(artifact / "manifest.json")

    refused(artifact, r"has no manifest\.json")


@pytest.mark.parametrize(
    ("one", "other"), [("README.md", "readme.md"), ("program/model.pt2", "program/MODEL.PT2"),
                       ("program/caf\u00e9", "program/cafe\u0301"), ("program/\ufb01le", "program/file")],
)  # fmt: skip
def test_two_names_of_one_file_are_refused(artifact: Path, one: str, other: str) -> None:
    for name in (one, other):
        (artifact / name).write_text("x") if not (artifact / name).exists() else None
    reseal(artifact)

    refused(artifact, "are one file on some systems")


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_damaged_cut_short_or_taken_away_is_named(
    honest: dict[str, Path], tmp_path: Path, name: str
) -> None:
    def flip(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    damages: dict[str, Callable[[Path], object]] = {
        "differs from its digest": flip,
        "differs from its digest in": lambda path: path.write_bytes(path.read_bytes()[:-1]),
        "is missing": Path.unlink,
    }
    for number, (message, damage) in enumerate(damages.items()):
        folder = copy(honest["torch"], tmp_path / str(number))
        damage(folder / name)
        refused(folder, f"{re.escape(name)} {message}")


@pytest.mark.parametrize("name", READ)
def test_a_file_that_loading_needs_is_missed_also_when_the_manifest_knows_nothing_of_it(
    artifact: Path, name: str
) -> None:
    (artifact / name).unlink()
    reseal(artifact)

    refused(artifact, f"{Path(name).name}|{Path(name).parent}")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("name", READ)
def test_half_a_file_is_refused_although_its_digest_is_right(artifact: Path, name: str, share: float) -> None:
    data = (artifact / name).read_bytes()
    (artifact / name).write_bytes(data[: int(len(data) * share)])
    reseal(artifact)

    refused(artifact, "golden|program")


@pytest.mark.parametrize(
    "name", ["extra.txt", "setup.py", "golden/extra.so", "golden/a/b.json", "lib/libevil.so", ".hidden"]
)
def test_a_file_that_has_no_place_in_an_artifact_is_refused_listed_or_not(artifact: Path, name: str) -> None:
    (artifact / name).parent.mkdir(parents=True, exist_ok=True)
    (artifact / name).write_text("import os")

    refused(artifact, f"holds {re.escape(repr(name))}")
    reseal(artifact)
    refused(artifact, re.escape(repr(name)))


@pytest.mark.parametrize("name", ["program/sitecustomize.py", "program/libextension.so", "program/model.onnx"])
def test_a_file_that_a_program_does_not_read_is_refused_although_it_is_listed(artifact: Path, name: str) -> None:
    (artifact / name).write_text("import os")

    refused(artifact, f"{re.escape(name)} is not listed in the manifest")
    reseal(artifact)

    refused(artifact, f"{re.escape(name)} is none of the files of a program of form torch")


def test_what_could_not_be_loaded_is_not_sealed(artifact: Path) -> None:
    given = Manifest(**json.loads((artifact / "manifest.json").read_text()))

    with pytest.raises(ArtifactError, match=r"holds 'run\.sh'"):
        seal(artifact, given, {"run.sh": "true"})


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (2, "from a newer Vivace"),
        (10**30, "from a newer Vivace"),
        (0, "schema_version is '0'; allowed is 1"),
        ("1", "schema_version is '1'; allowed is 1"),
        (True, "schema_version is 'True'"),
        (1.0, r"schema_version is '1\.0'"),
        (None, "schema_version is 'None'"),
        ([1], "schema_version is"),
    ],
)
def test_a_manifest_of_another_schema_is_refused(artifact: Path, version: object, message: str) -> None:
    edit_manifest(artifact, schema_version=version)

    refused(artifact, rf"manifest\.json is not a manifest of schema 1: .*{message}")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("executes_native_code", "false"), ("executes_native_code", 0), ("form", 3), ("files", []), ("plan", [1]),
        ("plan", [{"technique": "x"}]), ("plan", [{"technique": "x", "settings": {}, "run": "y"}]),
        ("golden", {"calls": 10**9, "tolerance": 0.1}), ("golden", {"calls": 0, "tolerance": 0.1}),
        ("golden", {"calls": 2, "tolerance": 1e300}), ("golden", {"calls": True, "tolerance": 0.1}),
        ("golden", {"calls": "2", "tolerance": 0.1}), ("proved_on_shapes", [[["5"]]]), ("name", None), ("run_me", "x"),
        ("files", {"README.md": {"sha256": "0" * 63, "bytes": 4}}),
        ("files", {"README.md": {"sha256": "0" * 64, "bytes": -4}}),
    ],
)  # fmt: skip
def test_a_field_of_another_kind_is_refused_by_its_name(artifact: Path, field: str, value: object) -> None:
    edit_manifest(artifact, **{field: value})

    refused(artifact, rf"manifest\.json is not a manifest of schema 1: {field}")


def text_of(folder: Path, change: Callable[[str], str], name: str = "manifest.json") -> None:
    path = folder / name
    path.write_text(change(path.read_text()))


@pytest.mark.parametrize("name", ["manifest.json", "program/program.json", "golden/calls.json"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text.replace("{", '{"schema": 1, "schema": 1, ', 1), "the key 'schema' is given twice"),
        (lambda text: text.replace("{", '{"x": NaN, ', 1), "NaN is no finite number"),
        (lambda text: text.replace("{", '{"x": -Infinity, ', 1), "-Infinity is no finite number"),
        (lambda text: text.replace("{", '{"x": 1e999, ', 1), "1e999 is no finite number"),
        (lambda text: text.replace("{", '{"x": "\\ud800", ', 1), "surrogates not allowed"),
        (lambda text: text.replace("{", f'{{"x": {bomb(70)}, ', 1), "nested more than 64 levels"),
        (lambda text: bomb(100_000), "nested more than 64 levels"),
        (lambda text: "[" * 100_000, "nested more than 64 levels"),
        (lambda text: text.replace("{", f'{{"x": {"9" * 100_000}, ', 1), "integer string conversion"),
        (lambda text: text[:-2], "Expecting|delimiter"),
        (lambda text: "", "Expecting value"),
    ],
)
def test_json_that_is_a_bomb_or_means_two_things_is_refused(
    artifact: Path, name: str, change: Callable[[str], str], reason: str
) -> None:
    text_of(artifact, change, name)
    if name != "manifest.json":
        reseal(artifact)

    refused(artifact, rf"{Path(name).name}.*{reason}")


@pytest.mark.parametrize("name", ["manifest.json", "program/program.json", "golden/calls.json"])
def test_a_document_that_is_too_long_is_not_read(artifact: Path, name: str) -> None:
    with (artifact / name).open("ab") as file:
        file.truncate(32 << 20)
    files = json.loads((artifact / "manifest.json").read_text())["files"] if name != "manifest.json" else None
    if files:
        files[name] = {"sha256": zeros_digest(artifact / name), "bytes": 32 << 20}
        edit_manifest(artifact, files=files)

    refused(artifact, rf"{Path(name).name}.*({16 << 20})")


def zeros_digest(path: Path) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_a_plan_is_told_and_never_looked_up(artifact: Path) -> None:
    edit_manifest(artifact, plan=[{"technique": "os.system", "settings": {"command": "true"}}])

    load(artifact)


@pytest.mark.parametrize("sealed_again", [False, True])
@pytest.mark.parametrize("name", ["program/model.pt2", "golden-outputs.safetensors", "golden/calls.safetensors"])
def test_a_side_file_of_another_artifact_is_refused(
    artifact: Path, other_artifact: Path, name: str, sealed_again: bool
) -> None:
    shutil.copyfile(other_artifact / name, artifact / name)
    if sealed_again:
        reseal(artifact)

    refused(artifact, "differs from its digest" if not sealed_again else "golden|program")


def test_a_program_of_another_form_than_the_manifest_says_is_refused(honest: dict[str, Path], tmp_path: Path) -> None:
    folder = copy(honest["onnx"], tmp_path / "fast")
    edit_manifest(folder, form="torch")

    refused(folder, r"program\.json is of form onnx, but the manifest says 'torch'")


@pytest.mark.parametrize("told", [False, True])
def test_native_code_is_not_opened_without_trust_whatever_the_manifest_says(
    artifact: Path, told: bool, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch._inductor, "aoti_load_package", lambda path: canary.touch())
    (artifact / "program" / "model.pt2").rename(artifact / "program" / "native.pt2")
    for beside in ("example.safetensors", "graph.json"):
        (artifact / "program" / beside).unlink()
    edit_json(artifact / "program" / "program.json", lambda node: node.update(form="aot-inductor"))
    edit_manifest(artifact, form="aot-inductor", executes_native_code=told)
    reseal(artifact)

    refused(artifact, "trust=True")


def test_an_infinite_tolerance_is_refused_where_a_document_could_hold_one() -> None:
    with pytest.raises(ValueError, match="finite"):
        Golden(calls=1, tolerance=float("inf"))


@pytest.mark.parametrize("form", ["torch", "onnx", "openvino"])
def test_the_honest_ones_load_sealed_again_or_not(honest: dict[str, Path], tmp_path: Path, form: str) -> None:
    folder = copy(honest[form], tmp_path / "fast")
    load(folder)

    reseal(folder)

    load(folder)
