"""What this machine is said to be, and which techniques can be used on it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from vivace.cli import doctor
from vivace.cli.app import main
from vivace.cli.doctor import Runtime
from vivace.cli.importing import broken_packages
from vivace.cli.techniques import catalogue
from vivace.core.facts import Fact
from vivace.core.machine import Gpu, Machine
from vivace.core.registry import is_installed
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.devices import ceiling_store
from vivace.devices.machine import detect
from vivace.measure.services import probe

PLAIN = Machine("p", "x86_64", (), 2, 2, 1 << 30, "Linux")


@dataclasses.dataclass(frozen=True)
class MadeUp(Technique):
    """A made-up technique.

    With more to say.
    """

    stage = Stage.PRECISION
    family = Family.ALGORITHM
    effect = Effect.CHANGED
    source = "a paper"

    def apply(self, model: Any, work: Any) -> Any:
        return model


class Place(MadeUp):
    needs = frozenset({Fact.CUDA_DEVICE})
    gives = frozenset({Fact.ON_CUDA})


class Graphs(MadeUp):
    needs = frozenset({Fact.ON_CUDA})


class Absent(MadeUp):
    packages = ("a_package_that_nobody_has",)
    extra = "onnx"


class Broken(MadeUp):
    packages = ("broken_fake",)
    extra = "onnx"


class Native(MadeUp):
    needs = frozenset({Fact.NATIVE_ALLOWED, Fact.CALIBRATION})


def only(kind: type[Technique], machine: Machine, *others: type[Technique]) -> Any:
    known = {k.name(): k for k in (kind, *others)}
    return catalogue(known, machine)[0]


@pytest.fixture
def unbroken(monkeypatch: pytest.MonkeyPatch) -> None:
    """No package is imported to see whether it can be, which takes half a minute; one test does so by the command."""

    def nothing(packages: object) -> dict[str, str]:
        return {}

    monkeypatch.setattr(doctor, "broken_packages", nothing)


@pytest.mark.usefixtures("unbroken")
def test_doctor_prints_the_machine_and_its_runtimes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--no-measure"]) == 0
    printed = capsys.readouterr().out
    assert "cores" in printed
    assert "ceilings were not measured" in printed
    assert "torch" in printed


@pytest.mark.usefixtures("unbroken")
@pytest.mark.parametrize(("asked", "is_told"), [([], True), (["--quiet"], False)])
def test_doctor_says_what_it_waits_for(asked: list[str], is_told: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--no-measure", "--json", *asked]) == 0
    printed = capsys.readouterr()
    assert ("importing: each runtime" in printed.err) is is_told
    assert "importing: each runtime" not in printed.out


@pytest.mark.slow
def test_keras_is_tried_with_the_back_end_that_the_runtime_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("keras", reason="the extra vivace[keras] is not installed")
    (tmp_path / "keras.json").write_text('{"backend": "a_back_end_that_nobody_has"}')
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)

    assert broken_packages(["keras"]) == {}


def test_doctor_prints_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--no-measure", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["machine"]["cores_allowed"] >= 1
    assert {runtime["package"] for runtime in document["runtimes"]} >= {"torch", "onnxruntime", "openvino"}


@pytest.mark.usefixtures("unbroken")
def test_doctor_measures_one_thread_and_all_allowed_ones(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def at_once(kernel: Any) -> float:
        return 0.1

    monkeypatch.setattr(probe, "fastest_seconds", at_once)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["doctor", "--json"]) == 0
    machine = json.loads(capsys.readouterr().out)["machine"]
    assert [ceiling["threads"] for ceiling in machine["ceilings"]] == sorted({1, machine["cores_allowed"]})
    assert [one.threads for one in ceiling_store.kept(detect())] == sorted({1, machine["cores_allowed"]})


def test_the_fastest_run_counts() -> None:
    assert 0 < probe.fastest_seconds(lambda: sum(range(1000))) < 0.01


def test_a_missing_runtime_comes_with_its_install_line() -> None:
    assert Runtime("onnxruntime", "runs", None, "onnx").install == "install it with: pip install 'vivace[onnx]'"
    assert Runtime("onnxruntime", "runs", "1.0", "onnx").install == ""


def test_a_technique_that_lacks_a_machine_fact_says_which() -> None:
    entry = only(Place, PLAIN)
    assert (entry.available, entry.reason) == (False, "needs a CUDA device")


def test_a_technique_that_builds_on_an_impossible_one_is_unavailable() -> None:
    assert only(Graphs, PLAIN, Place).reason == "needs the program to be on a CUDA device"


def test_a_technique_that_builds_on_a_possible_one_is_available() -> None:
    machine = dataclasses.replace(PLAIN, gpus=(Gpu("a card", 1 << 30, (9, 0)),))
    assert only(Graphs, machine, Place).available


def test_a_technique_without_its_package_says_how_to_get_it() -> None:
    entry = only(Absent, PLAIN)
    assert entry.reason == ("needs the package a_package_that_nobody_has; install it with: pip install 'vivace[onnx]'")


def test_a_folder_that_an_uninstallation_left_behind_is_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "left_behind" / "__pycache__").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)

    assert not is_installed("left_behind")
    assert not is_installed("never_there")
    assert is_installed("torch")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ImportError('libgone.so: cannot open shared object file')", "libgone.so: cannot open shared object"),
        ("import os; os.abort()", "its import ends the process (-6)"),
    ],
)
def test_a_package_that_is_there_and_cannot_be_imported_makes_its_techniques_unavailable(
    code: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "broken_fake").mkdir()
    (tmp_path / "broken_fake" / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("vivace.core.registry.techniques", lambda: {"broken": Broken, "made-up": MadeUp})

    assert main(["techniques", "--json"]) == 0

    broken, whole = json.loads(capsys.readouterr().out)["techniques"]
    assert (broken["available"], whole["available"]) == (False, True)
    assert reason in broken["reason"]
    assert broken["reason"].startswith("the package broken_fake is there but cannot be imported (")
    assert broken["reason"].endswith("install it with: pip install 'vivace[onnx]'")


def test_a_runtime_that_is_broken_comes_with_its_install_line() -> None:
    broken = Runtime("onnxruntime", "runs", "1.0", "onnx", "libgone.so: cannot open shared object file")
    assert broken.install == "install it with: pip install 'vivace[onnx]'"


def test_what_the_user_must_give_is_named() -> None:
    entry = only(Native, PLAIN)
    assert entry.available
    assert entry.asks_for == (Fact.CALIBRATION.value, Fact.NATIVE_ALLOWED.value)


def test_the_first_line_of_the_docstring_is_the_summary() -> None:
    assert only(MadeUp, PLAIN).summary == "A made-up technique."


def test_techniques_prints_one_document(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vivace.core.registry.techniques", lambda: {"made-up": MadeUp, "place": Place})
    assert main(["techniques", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["techniques"]
    assert [(entry["name"], entry["family"]) for entry in entries] == [("made-up", "algorithm"), ("place", "algorithm")]


def test_techniques_prints_a_table_by_family(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vivace.core.registry.techniques", lambda: {"made-up": MadeUp, "absent": Absent})
    assert main(["techniques"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("algorithm")
    assert "unavailable: needs the package" in printed


def test_a_file_that_has_a_packages_name_where_the_command_is_given_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "colorsys.py").write_text("raise SystemExit('this file was run')")
    monkeypatch.chdir(tmp_path)

    assert broken_packages(["colorsys"]) == {}
