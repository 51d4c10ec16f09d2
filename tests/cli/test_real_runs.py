"""The command line for real: model files in, documents out, kills and interrupts survived."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import nn

import vivace as vv
from disturbed import skip_if_disturbed
from vivace.search.journal import read_journal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

JOB = """
import torch
import vivace as vv
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(*[nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(12)], nn.Linear(64, 4)).eval()
x = torch.randn(1500, 64)
y = model(x).argmax(1)
work = vv.Workload(model, inputs=(x[:16],), data=list(zip(x.split(50), y.split(50))), metric=vv.metrics.accuracy,
                   name="tanh")
"""
COMMAND = [sys.executable, "-c", "import sys; from vivace.cli import main; sys.exit(main())"]
QUICK = ["--only", "inference-mode,threads,onnx-runtime,openvino", "--time", "30s"]


@pytest.fixture
def job(workbench: Path) -> str:
    """A target in the current folder."""
    (workbench / "job.py").write_text(JOB)
    return "job.py:work"


def run(*words: str) -> tuple[int, dict[str, Any], str]:
    """One command with --json: its exit code, its document, and what it said on standard error."""
    done = subprocess.run([*COMMAND, *words, "--json"], capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout), done.stderr


def write_onnx(path: Path) -> None:
    program = torch.onnx.export(network(), (torch.randn(4, 8),), dynamo=True, verbose=False)
    assert program is not None
    program.save(str(path))


def write_pt2(path: Path) -> None:
    torch.export.save(torch.export.export(network(), (torch.randn(4, 8),)), path)


def write_keras(path: Path) -> None:
    script = (
        "import os; os.environ['KERAS_BACKEND'] = 'torch'\n"
        "import sys, keras\n"
        "layers = [keras.layers.Dense(32, activation='relu') for _ in range(4)]\n"
        "keras.Sequential([keras.Input((8,)), *layers, keras.layers.Dense(3)]).save(sys.argv[1])\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, capture_output=True)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3)).eval()


@pytest.mark.parametrize(
    ("name", "write"), [("model.onnx", write_onnx), ("model.pt2", write_pt2), ("model.keras", write_keras)]
)
@pytest.mark.filterwarnings("ignore")
def test_a_model_file_becomes_an_artifact_judged_by_fidelity(workbench: Path, name: str, write: object) -> None:
    write(workbench / name)  # type: ignore[operator]

    code, document, said = run("optimize", name, "--out", "fast", *QUICK)

    assert code in (0, 3), said
    assert document["artifact"] == "fast"
    assert "fidelity" in str(document["notes"])
    assert document["speedup"].keys() == {"value", "low", "high"}
    assert document["quality"]["verdict"] == "HELD"
    x = torch.randn(4, 8)
    answer = vv.load(workbench / "fast")(x)
    assert torch.isfinite(answer).all()


def test_optimize_and_measure_agree_on_a_python_target(job: str) -> None:
    code, found, said = run("optimize", job, "--out", "fast", *QUICK[:-1], "60s")
    skip_if_disturbed(found["noise_floor"])
    assert code == 0, said

    code, compared, said = run("measure", job, "fast", "--time", "10s")

    assert code == 0, said
    assert compared["verdict"] == "FASTER"
    assert compared["speedup"]["value"] == pytest.approx(found["speedup"]["value"], rel=0.5)


def test_a_fast_plan_that_cannot_be_certified_exits_with_4_or_is_not_delivered(job: str) -> None:
    code, document, said = run(
        "optimize",
        job,
        "--out",
        "fast",
        "--only",
        "openvino,openvino-bfloat16",
        "--time",
        "30s",
        "--max-drop",
        "0.0001",
    )

    assert code in (0, 3, 4), said
    assert "openvino-bfloat16" not in str(document["plan_name"])


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for_trials(process: subprocess.Popen[str], journal: Path, count: int) -> None:
    """Until the journal holds that many trials."""
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end:
        if sum(record["kind"] == "trial" for record in read_journal(journal)) >= count:
            return
        time.sleep(0.1)
    pytest.fail(f"no {count} trials: {process.communicate()[1]}")


@pytest.fixture
def children() -> Iterator[list[psutil.Process]]:
    """Processes to be watched; none of them may be alive in the end."""
    watched: list[psutil.Process] = []
    yield watched
    _, alive = psutil.wait_procs(watched, timeout=15)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


def test_a_search_that_was_killed_goes_on_without_repeating_what_is_known(
    job: str, workbench: Path, children: list[psutil.Process]
) -> None:
    journal = workbench / ".vivace" / "fast" / "journal.jsonl"
    process = start("optimize", job, "--out", "fast", "--time", "90s")
    wait_for_trials(process, journal, 2)
    children += psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    known = plans(journal)

    again = start("optimize", job, "--out", "fast", "--time", "40s", "--resume", "--json")
    out, said = again.communicate()

    assert again.returncode == 0, said
    assert f"{len(known)} trials are known from an earlier session" in " ".join(said.split())
    tried = [candidate["plan_name"] for candidate in json.loads(out)["candidates"]]
    assert len(tried) == len(set(tried))
    assert set(known) <= set(tried)
    assert not any(f"tried 1: {plan}" in said for plan in known)
    assert not journal.exists()


def plans(journal: Path) -> list[str]:
    return [json.dumps(r["trial"]["plan"]) and _name(r) for r in read_journal(journal) if r["kind"] == "trial"]


def _name(record: dict[str, object]) -> str:
    from vivace.core import registry
    from vivace.core.plan import read_plan

    return str(read_plan(record["trial"]["plan"], registry.techniques()))  # type: ignore[index]


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_leaves_the_previous_artifact_the_journal_and_no_process(
    job: str, workbench: Path, children: list[psutil.Process], times: int
) -> None:
    old = workbench / "fast"
    assert run("optimize", job, "--out", "fast", "--only", "inference-mode", "--time", "20s")[0] in (0, 3)
    before = (old / "manifest.json").read_bytes()
    process = start("optimize", job, "--out", "fast", "--time", "90s")
    wait_for_trials(process, workbench / ".vivace" / "fast" / "journal.jsonl", 1)
    children += psutil.Process(process.pid).children(recursive=True)

    for signals in interrupts(times):
        os.kill(process.pid, signals)
    _, said = process.communicate(timeout=60)

    assert process.returncode in ((130,) if times == 1 else (130, -signal.SIGINT)), said
    assert (old / "manifest.json").read_bytes() == before
    assert "cancelled" in said
    assert plans(workbench / ".vivace" / "fast" / "journal.jsonl")
    assert sorted(p.name for p in workbench.iterdir() if p.name != "__pycache__") == [".vivace", "fast", "job.py"]


def interrupts(times: int) -> Sequence[signal.Signals]:
    return [signal.SIGINT] * times


def test_a_termination_signal_ends_like_ctrl_c(job: str, workbench: Path, children: list[psutil.Process]) -> None:
    process = start("optimize", job, "--out", "fast", "--time", "90s")
    wait_for_trials(process, workbench / ".vivace" / "fast" / "journal.jsonl", 1)
    children += psutil.Process(process.pid).children(recursive=True)

    process.terminate()
    _, said = process.communicate(timeout=60)

    assert process.returncode == 130, said
    assert not (workbench / "fast").exists()
