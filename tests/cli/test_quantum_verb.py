"""`vivace quantum`: one block, one document, its page again; what cannot be used is one message."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from vivace.cli.app import main

FILE = """
import torch
import vivace as vv

torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(12, 8), torch.nn.Linear(8, 2)).eval()
work = vv.Workload(net, inputs=(torch.randn(2, 12),), name="net")
"""
QUICK = ["--shots", "256", "--outputs", "1", "--error", "0.1"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "net_work.py").write_text(FILE)
    return tmp_path / "net_work.py"


@pytest.fixture
def _circuits() -> None:
    pytest.importorskip("qiskit", reason="circuits need qiskit: pip install 'vivace[quantum]'")
    pytest.importorskip("qiskit_aer", reason="circuits need qiskit-aer: pip install 'vivace[quantum]'")


@pytest.mark.usefixtures("_circuits")
def test_the_first_line_is_the_verdict_and_the_page_can_be_written_again(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    run = tmp_path / "run"

    assert main(["quantum", f"{file}:work", "--layer", "1", *QUICK, "--out", str(run), "--quiet"]) == 0

    told = capsys.readouterr().out
    assert told.startswith("net, layer 1: about 10^")
    assert all(word in told for word in ("SIMULATED", "PREDICTED", "MEASURED", "dynamic programming", "chsh"))
    assert main(["report", str(run), "--out", str(tmp_path), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["headline"].startswith("net, layer 1: about 10^")
    assert (tmp_path / "report.html").read_text() == (run / "report.html").read_text()


@pytest.mark.usefixtures("_circuits")
def test_json_is_one_document(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantum", f"{file}:work", *QUICK, "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    assert found["layer"] == "0"
    assert found["verdict"]["slower"] > 1
    assert {answer["basis"] for choice in found["choices"] for answer in choice["answers"]} == {
        "EXACT", "HEURISTIC", "SIMULATED",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--layer", "nothing"], "no linear layer answers"), (["--elements", "65"], "1 to 64"),
        (["--max-qubits", "0"], "a number above zero"), (["--machine", "ibm-x"], "unknown quantum machine"),
        (["--times", "nowhere.json"], "there is no file"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("_circuits")
def test_what_cannot_be_used_is_one_message(
    file: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quantum", f"{file}:work", *words, *QUICK, "--quiet"]) == 2
    assert told in capsys.readouterr().err


def test_a_missing_package_is_an_environment_fault(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "qiskit", None)

    assert main(["quantum", f"{file}:work"]) == 5
    assert "install it with: pip install 'vivace[quantum]'" in capsys.readouterr().err
