"""Safetensors files that lie about what they hold, and golden calls and answers that are none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from attacks.forging import edit_header, edit_json, edit_manifest, reseal
from vivace.artifact.load import load
from vivace.core.errors import ArtifactError

FILES = ("golden/calls.safetensors", "golden-outputs.safetensors", "program/example.safetensors")


def entries(header: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry for name, entry in header.items() if name != "__metadata__"]


def each(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda header: [entry.update(changes) for entry in entries(header)] and None


def overlapping(header: dict[str, Any]) -> None:
    header["twin"] = dict(entries(header)[0])


def escaping(header: dict[str, Any]) -> None:
    header["../../escape"] = header.pop(next(name for name in header if name != "__metadata__"))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "change",
    [
        each(shape=[1 << 31, 1]), each(shape=[1 << 62, 1 << 62]), each(shape=[-1]), each(shape=[0]), each(shape="2"),
        each(dtype="F128"), each(dtype="F64"), each(dtype=7), each(data_offsets=[0, 1 << 31]),
        each(data_offsets=[8, 0]), each(data_offsets=[-8, 8]), each(data_offsets=[1 << 63, 1 << 64]),
        each(data_offsets=[]),
        overlapping, escaping,
        lambda header: header.clear(),
    ],
)  # fmt: skip
def test_a_header_that_lies_is_refused_and_the_file_named(
    artifact: Path, name: str, change: Callable[[dict[str, Any]], None]
) -> None:
    edit_header(artifact / name, change)
    reseal(artifact)

    with pytest.raises(ArtifactError, match=Path(name).stem):
        load(artifact)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("size", [0, 1, 1 << 20, 2 << 30, (1 << 63) - 1, (1 << 64) - 1])
def test_a_header_that_is_longer_than_its_file_is_refused(artifact: Path, name: str, size: int) -> None:
    data = (artifact / name).read_bytes()
    (artifact / name).write_bytes(size.to_bytes(8, "little") + data[8:])
    reseal(artifact)

    with pytest.raises(ArtifactError, match=Path(name).stem):
        load(artifact)


@pytest.mark.parametrize("name", FILES)
def test_more_bytes_than_the_header_tells_of_are_refused(artifact: Path, name: str) -> None:
    with (artifact / name).open("ab") as file:
        file.write(b"MZ" * 100)
    reseal(artifact)

    with pytest.raises(ArtifactError, match=Path(name).stem):
        load(artifact)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        (None, "header of .*golden-outputs.safetensors is damaged"),
        ({"count": "2"}, "KeyError: 'answer'"),
        ({"answer": '{"kind": "tensor"}'}, "KeyError: 'count'"),
        ({"answer": "[" * 5000, "count": "2"}, "nested more than 64 levels"),
        (
            {"answer": '{"kind": "tensor"}', "count": "2000000000"},
            "holds 2 tensors; expected are 2000000000 groups of 1",
        ),
        ({"answer": '{"kind": "tensor"}', "count": "-2"}, "expected are -2 groups of 1"),
        ({"answer": '{"kind": "tensor"}', "count": "1e3"}, "invalid literal"),
        ({"answer": '{"kind": "tensor", "kind": "list"}', "count": "2"}, "given twice"),
        ({"answer": '{"kind": "list"}', "count": "1000000000000"}, "golden-outputs.safetensors holds 2 tensors"),
    ],
)
def test_answers_whose_description_lies_are_refused(
    artifact: Path, metadata: dict[str, str] | None, reason: str
) -> None:
    path = artifact / "golden-outputs.safetensors"
    save_file(load_file(path), path, metadata=metadata)
    reseal(artifact)

    with pytest.raises(ArtifactError, match=reason):
        load(artifact)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.double(), lambda t: t.half(), lambda t: t.int(), lambda t: t[:1], lambda t: t * float("nan"),
        lambda t: t + float("inf"), lambda t: t + 1, lambda t: t.to(torch.complex64), lambda t: t.reshape(-1),
    ],
)  # fmt: skip
def test_answers_that_are_not_the_programs_are_refused(
    artifact: Path, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    path = artifact / "golden-outputs.safetensors"
    told = {"answer": '{"kind": "tensor"}', "count": "2"}
    save_file({name: change(tensor).contiguous() for name, tensor in load_file(path).items()}, path, metadata=told)
    reseal(artifact)

    with pytest.raises(ArtifactError, match=r"golden call 0 of .* is off by"):
        load(artifact)


@pytest.mark.parametrize(
    "changes",
    [
        {"calls": 10**9}, {"calls": -1}, {"calls": "2"}, {"calls": True}, {"calls": 2.0}, {"positional": 9},
        {"positional": -1}, {"positional": "1"}, {"call": {"kind": "tensor"}}, {"call": []}, {"call": None},
        {"call": {"kind": "dict", "keys": ["x"], "items": [{"kind": "list"}]}, "calls": 1 << 40},
        {"mix": {"shapes": [0], "weights": [1.0]}}, {"mix": {"shapes": [0, 9], "weights": [1.0]}},
        {"mix": {"shapes": [0, 0], "weights": []}}, {"mix": {"shapes": [0, 0], "weights": [-1.0]}}, {"mix": 3},
    ],
)  # fmt: skip
def test_calls_whose_description_lies_are_refused(artifact: Path, changes: dict[str, Any]) -> None:
    edit_json(artifact / "golden" / "calls.json", lambda node: node.update(changes))
    reseal(artifact)

    with pytest.raises(ArtifactError, match="calls"):
        load(artifact)


def test_fewer_golden_calls_than_the_manifest_says_are_refused(artifact: Path) -> None:
    edit_manifest(artifact, golden={"calls": 1, "tolerance": 1e-4})

    with pytest.raises(ArtifactError, match="holds 2 golden calls and 2 golden outputs; the manifest says 1"):
        load(artifact)


@pytest.mark.parametrize("name", FILES)
def test_a_tensor_that_nobody_asked_for_is_refused(artifact: Path, name: str) -> None:
    from safetensors import safe_open

    with safe_open(artifact / name, framework="pt") as file:
        told = file.metadata()
    save_file({**load_file(artifact / name), "payload": torch.zeros(9)}, artifact / name, metadata=told)
    reseal(artifact)

    with pytest.raises(
        ArtifactError, match=rf"{Path(name).stem}.*(holds 3 tensors; expected are 2 groups of 1|damaged)"
    ):
        load(artifact)
