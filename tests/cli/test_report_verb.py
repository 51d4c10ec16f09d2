"""`vivace report`: where the page goes, what is printed, and that an artifact stays as it was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from false_api import made_result

from vivace.cli.app import main
from vivace.core.result import Status
from vivace.report.results import to_document


@pytest.fixture
def run(workbench: Path) -> Path:
    """A folder with a results.json and a manifest, as an artifact has them."""
    folder = workbench / "fast"
    folder.mkdir()
    (folder / "results.json").write_text(to_document(made_result()).to_text())
    (folder / "manifest.json").write_text("{}")
    return folder


def test_the_page_is_written_here_and_the_artifact_stays_as_it_was(
    run: Path, workbench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(run.iterdir())
    assert main(["report", "fast"]) == 0
    assert (workbench / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert sorted(run.iterdir()) == before
    assert capsys.readouterr().out.splitlines() == [
        "2.00x faster [1.90, 2.10] than the original, MEASURED; quality HELD: drop 0.00 pp, upper bound 0.50 < budget "
        "1.0 pp (n=500)",
        "report: report.html",
    ]


def test_the_page_goes_to_the_file_or_the_folder_that_is_named(run: Path, workbench: Path) -> None:
    (workbench / "pages").mkdir()
    assert main(["report", "fast/results.json", "--out", "pages/one.html"]) == 0
    assert main(["report", "fast", "--out", "pages"]) == 0
    one, other = (workbench / "pages" / name for name in ("one.html", "report.html"))
    assert one.read_text() == other.read_text()


def test_with_json_the_path_and_the_headline_are_one_document(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "fast", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["report"] == "report.html"
    assert found["headline"].startswith("2.00x faster [1.90, 2.10] than the original")
    assert found["speedup"] == {"value": 2.0, "low": 1.9, "high": 2.1}
    assert found["bytes"] == Path("report.html").stat().st_size


def test_the_exit_code_does_not_depend_on_the_result(run: Path) -> None:
    (run / "results.json").write_text(to_document(made_result(Status.NOTHING_FASTER)).to_text())
    assert main(["report", "fast"]) == 0


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["report"], "RUN"),
        (["report", "nowhere"], "there is no results.json"),
        (["report", "fast/manifest.json"], "no schema_version"),
        (["report", "fast", "--out", "fast"], "inside the artifact"),
        (["report", "fast", "--out", "fast/again.html"], "sealed by their digests"),
        (["report", "fast", "--out", "no/such/folder.html"], "there is no folder no/such"),
        (["report", "fast", "--out", "/dev/null"], "neither a file nor a folder"),
    ],
)
def test_what_cannot_be_used_exits_with_2_and_one_message(
    words: list[str], part: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert part in said.err
    assert len(said.err.splitlines()) == 1
    assert not Path("report.html").exists()


def test_a_report_made_in_the_artifact_s_own_folder_would_break_its_digests(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run)
    assert main(["report", "."]) == 2
    assert "give --out PATH elsewhere" in capsys.readouterr().err


def test_a_place_that_may_not_be_written_to_exits_with_5(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "fast", "--out", "/sys"]) == 5  # where not even root may make a file
    assert ": /sys/report.html; check that the path exists and is yours" in capsys.readouterr().err


def test_a_report_needs_no_torch(run: Path) -> None:
    code = (
        "import sys; from vivace.cli import main; code = main(['report', 'fast']); "
        "sys.exit(code or bool({'torch', 'numpy', 'vivace.api'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
