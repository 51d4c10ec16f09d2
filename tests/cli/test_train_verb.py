"""`vivace train`: a real job from a file, diagnosed and trained; what is no job is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from interrupting import Interrupting
from vivace.cli.app import main
from vivace.core.errors import WorkerFailure
from vivace.core.measurement import Outcome

FILE = """
import vivace as vv
from vivace.testing import tiny_training

job = tiny_training.job(epochs=2)
slow = tiny_training.job(name="made")


def made():
    return slow


workload = vv.Workload(tiny_training.perceptron(), inputs=(__import__("torch").zeros(2, 12),))
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "job.py").write_text(FILE)
    return tmp_path / "job.py"


def test_a_diagnosis_is_one_document(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", f"{file}:made", "--diagnose-only", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)

    assert found["diagnosis"]["bound"] in ("input", "overhead", "memory", "compute", "kernels")
    phases = {one["phase"] for one in found["diagnosis"]["roofline"]["operators"]}
    assert phases == {"forward", "backward", "update"}
    assert found["diagnosis"]["step_seconds"] > 0


def test_a_diagnosis_for_people_fits_a_page(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", f"{file}:job", "--diagnose-only"]) == 0
    told = capsys.readouterr().out

    assert all(phase in told for phase in ("waiting for input", "forward and loss", "backward", "optimizer", "MFLOP"))
    assert len(told.splitlines()) < 40


def test_a_training_is_told_and_kept(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--only", "channels-last", "--out", str(tmp_path / "run"), "--time", "20s"]
    assert main(["train", f"{file}:job", *asked]) == 0
    told = capsys.readouterr()

    assert "no plan was faster and the same, so it was trained as given" in told.out
    assert "no weight of four dimensions" in told.out + told.err or "unsupported" in told.out
    assert json.loads((tmp_path / "run" / "run.json").read_text())["steps"] == 14
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert "no plan was faster and the same" in again["headline"]
    assert (again["plan_name"], again["speedup"]) == ("original", None)
    assert (tmp_path / "report.html").read_text() == (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("job.py", "path/to/file.py:name"), ("job.py:workload", "which `vivace optimize` takes"),
        ("job.py:nothing", "nothing"), ("nowhere.py:job", "there is no file"),
    ],
)  # fmt: skip
def test_what_is_no_job_is_refused(
    file: Path, target: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(file.parent)

    assert main(["train", target]) == 2
    assert told in capsys.readouterr().err


def test_a_training_is_no_workload(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimize", f"{file}:job"]) == 2
    assert "which `vivace train` takes" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vivace.report.progress.progress_on", lambda *_: Interrupting())
    out = tmp_path / "run"

    assert main(["train", f"{file}:job", "--only", "channels-last", "--out", str(out)]) == 130
    told = " ".join(capsys.readouterr().err.split())

    assert "the last checkpoint is kept in" in told and "--resume" in told
    assert main(["train", f"{file}:job", "--out", str(out), "--resume"]) == 0


def test_a_worker_that_dies_says_how_to_go_on(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"

    def dies(job: object, **asked: object) -> None:
        raise WorkerFailure(Outcome.CRASHED, "the worker was killed by signal 9")

    monkeypatch.setattr("vivace.api.train", dies)
    assert main(["train", f"{file}:job", "--out", str(out)]) == 5
    assert "go on with" not in capsys.readouterr().err

    (out / "checkpoints" / "step-000000004").mkdir(parents=True)
    (out / "checkpoints" / "step-000000004" / "state.json").touch()
    assert main(["train", f"{file}:job", "--out", str(out)]) == 5
    told = " ".join(capsys.readouterr().err.split())
    assert "killed by signal 9; the last checkpoint is kept in" in told and f"--out {out} --resume" in told


@pytest.mark.parametrize("error", [WorkerFailure(Outcome.OOM, "rank 1: MemoryError"), KeyboardInterrupt()])
def test_the_command_to_go_on_with_has_the_processes_their_layout_and_the_score_to_reach(
    error: BaseException,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"

    def ends(job: object, **asked: object) -> None:
        raise error

    monkeypatch.setattr("vivace.api.train", ends)
    (out / "checkpoints" / "step-000000004").mkdir(parents=True)
    (out / "checkpoints" / "step-000000004" / "state.json").touch()
    given = ["--processes", "2", "--layout", "shard=2", "--until", "0.9", "--deadline", "20s"]

    assert main(["train", f"{file}:job", "--out", str(out), "--time", "1m", "--plan", "[]", *given]) != 0

    told = " ".join(capsys.readouterr().err.split())
    assert f"--out {out} --until 0.9 --processes 2 --layout shard=2 --deadline 20s --resume" in told


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ("channels-last", "channels-last cannot be used for this job: channels-last: no weight of four dimensions"),
        ("foreach-optimizer,channels-last", "leave channels-last out in plan (--plan), or give none"),
        ("openvino", "openvino, which acts on models that are run (`vivace optimize`) and not on their training"),
        ("native-step,recorded-step", "is not possible: recorded-step"),
    ],
)
def test_a_plan_that_does_not_fit_the_job_is_refused_as_what_was_given(
    file: Path, tmp_path: Path, plan: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"

    assert main(["train", f"{file}:job", "--plan", plan, "--out", str(out)]) == 2
    assert told in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_plan_that_needs_a_device_which_is_not_there_is_refused_as_of_this_machine(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", f"{file}:job", "--plan", "captured-step", "--out", str(tmp_path / "run")]) == 5
    assert "captured-step needs a CUDA device, which is not on this machine" in capsys.readouterr().err


def test_a_technique_that_is_asked_for_and_left_out_is_refused(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", f"{file}:job", "--plan", "foreach-optimizer", "--without", "foreach-optimizer"]) == 2
    assert "asks for foreach-optimizer, which without (--without) leaves out" in capsys.readouterr().err
