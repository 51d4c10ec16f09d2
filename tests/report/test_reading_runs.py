"""Reading a run back: from its folder or its file, and what is said of everything else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from vivace.core.errors import UsageError
from vivace.core.result import Result
from vivace.report.reading import read_run, read_text
from vivace.report.results import to_document

LATER = ("noise_ratios", "profiles", "sensitivity", "compute")


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "results.json"
    path.write_text(json.dumps(changes))
    return path


def test_a_run_is_read_from_its_folder_and_from_its_file(result: Result, tmp_path: Path) -> None:
    document = to_document(result)
    (tmp_path / "results.json").write_text(document.to_text())
    assert read_run(tmp_path) == read_run(tmp_path / "results.json") == document


def test_a_file_from_before_a_key_was_there_reads_back(result: Result) -> None:
    node = json.loads(to_document(result).to_text())
    for name in LATER:
        del node[name]
    for trial in node["candidates"]:
        del trial["started_seconds"], trial["ended_seconds"]
    found = read_text(json.dumps(node))
    assert (found.noise_ratios, found.profiles, found.sensitivity, found.compute) == ([], None, [], None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nonsense", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[1]", "it has no schema_version"),
        ("{}", "it has no schema_version"),
        ('{"schema_version": 1, "plans": []}', "is not a result of schema 1: name: Field required"),
        ('{"schema_version": 2}', "is of schema 2, and this version of Vivace reads up to 1; install a newer Vivace"),
    ],
)
def test_what_is_no_result_is_refused_with_what_to_do(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(UsageError, match=r"results\.json") as caught:
        read_run(tmp_path)
    assert told in str(caught.value)


def test_a_key_of_another_version_is_named(result: Result) -> None:
    node = {**json.loads(to_document(result).to_text()), "surprise": 1}
    with pytest.raises(UsageError, match="surprise: Extra inputs"):
        read_text(json.dumps(node))


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_path_without_a_result_says_what_is_allowed(name: str, tmp_path: Path) -> None:
    told = (
        "there is no results.json, no run.json and no quantum.json; give the folder that `vivace optimize --out`, "
        "`vivace train --out` or `vivace quantum --out` wrote"
    )
    with pytest.raises(UsageError, match=re.escape(told)):
        read_run(tmp_path / name)
