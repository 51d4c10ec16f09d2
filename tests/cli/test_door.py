"""The door: help, version, exit codes, errors as one message or one document, nothing else on standard output."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from false_api import FalseApi, made_result
from typer.testing import CliRunner

from vivace.cli.app import app, main
from vivace.core.errors import DiskFull, MissingExtra, UnsupportedModel, VivaceError
from vivace.core.result import Status

VERBS = ("demo", "doctor", "techniques", "optimize", "train", "measure", "report", "serve", "bench-serve")


def raising(error: BaseException) -> Any:
    def answer() -> None:
        raise error

    return answer


def test_without_arguments_the_help_is_shown_and_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Usage: vivace" in capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_examples(verb: str) -> None:
    found = CliRunner().invoke(app, [verb, "--help"])
    assert found.exit_code == 0
    assert "Examples:" in found.stdout
    assert f"vivace {verb}" in found.stdout
    assert "--json" in found.stdout


def test_the_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "vivace 0.1.0\n"


def test_shell_completion_can_be_shown() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from vivace.cli import main; main()"],
        capture_output=True,
        text=True,
        env={**os.environ, "_VIVACE_COMPLETE": "complete_bash", "COMP_WORDS": "vivace opt", "COMP_CWORD": "1"},
        check=False,
    )
    assert "optimize" in done.stdout


def test_a_misspelt_verb_names_the_nearest_and_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimise", "x"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: No such command 'optimise'. Did you mean 'optimize'?")
    assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["optimize"], "TARGET"),
        (["optimize", "x.onnx", "--objective", "speed"], "'latency', 'throughput', 'memory', 'size'"),
        (["optimize", "x.onnx", "--gate", "none"], "'strict', 'point', 'fidelity'"),
        (["optimize", "x.onnx", "--max-drop", "much"], "--max-drop"),
        (["optimize", "x.onnx", "--max-drop", "-1"], "negative"),
        (["optimize", "x.onnx", "--max-drop", "nan"], "finite"),
        (["optimize", "x.onnx", "--time", "soon"], "90s, 5m or 1h30m"),
        (["optimize", "x.onnx", "--tiem", "5m"], "--tiem"),
        (["demo", "--time", "0s"], "above zero"),
        (["measure", "a"], "B"),
    ],
)
def test_what_cannot_be_used_exits_with_2_and_says_what_is_allowed(
    words: list[str], part: str, capsys: pytest.CaptureFixture[str], api: FalseApi
) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert part in captured.err
    assert "Traceback" not in captured.err
    assert api.calls == []


def test_with_json_an_error_is_one_document_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimize", "x.onnx", "--time", "soon", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["kind"], error["exit_code"]) == ("UsageError", 2)
    assert "90s, 5m or 1h30m" in error["message"]


def test_a_misspelt_option_is_a_document_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--jason", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "UsageError"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnsupportedModel("no graph"), 2),
        (MissingExtra("onnxruntime", "onnx", "this"), 5),
        (DiskFull("the disk is full"), 6),
        (OSError(errno.ENOSPC, "No space left on device"), 6),
        (PermissionError(errno.EACCES, "Permission denied", "/there"), 5),
        (KeyboardInterrupt(), 130),
        (VivaceError("of no special kind"), 1),
        (ZeroDivisionError("a defect"), 1),
    ],
)
def test_each_kind_of_error_has_its_exit_code_and_one_message(
    error: BaseException, code: int, api: FalseApi, capsys: pytest.CaptureFixture[str]
) -> None:
    api.answer = raising(error)
    assert main(["optimize", "work.py:job", "--quiet"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert captured.err.startswith("error: ")


@pytest.mark.parametrize(
    ("kept", "told"), [(True, "--resume goes on from here"), (False, "no plan had been tried yet")]
)
def test_ctrl_c_says_what_was_kept(
    kept: bool,
    told: str,
    api: FalseApi,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if kept:
        (tmp_path / ".vivace" / "mine").mkdir(parents=True)
    api.answer = raising(KeyboardInterrupt())
    assert main(["optimize", "work.py:job", "--out", "mine", "--quiet"]) == 130
    assert capsys.readouterr().err == f"error: cancelled; what was at mine is unchanged, and {told}\n"


def test_the_debug_variable_shows_the_trace(
    api: FalseApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIVACE_DEBUG", "1")
    api.answer = raising(ZeroDivisionError("a defect"))
    assert main(["optimize", "work.py:job", "--quiet"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (Status.FASTER, 0),
        (Status.NOTHING_FASTER, 3),
        (Status.QUALITY_UNCERTIFIED, 4),
    ],
)
def test_the_status_of_a_result_is_the_exit_code(
    status: Status, code: int, api: FalseApi, capsys: pytest.CaptureFixture[str]
) -> None:
    api.answer = lambda: made_result(status)
    assert main(["optimize", "work.py:job", "--json", "--quiet"]) == code
    assert json.loads(capsys.readouterr().out)["status"] == status.value


def test_the_help_imports_neither_torch_nor_pydantic_nor_the_api() -> None:
    code = (
        "import sys; from vivace.cli import main; main(['--help']); "
        "heavy = {'torch', 'numpy', 'vivace.api', 'vivace.techniques'} & set(sys.modules); sys.exit(bool(heavy))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_a_reader_that_goes_away_is_no_trace(tmp_path: Path) -> None:
    command = f"{sys.executable} -c \"from vivace.cli import main; main(['--help'])\" 2>{tmp_path}/err | true"
    subprocess.run(["bash", "-c", command], check=True)
    assert "Traceback" not in (tmp_path / "err").read_text()


def test_a_full_disk_that_no_path_is_told_of_is_looked_for(
    api: FalseApi, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    api.answer = raising(OSError(errno.ENOSPC, "No space left on device"))

    assert main(["optimize", "work.py:job", "--quiet"]) == 6
    told = capsys.readouterr().err
    assert "the disk is full, most likely that of /" in told and "TMPDIR, which is /" in told
