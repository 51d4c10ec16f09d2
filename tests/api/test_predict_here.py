"""`vivace.predict` on this machine: what is refused, what the law of processes makes of what was timed."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

import vivace as vv
from vivace.api.prediction import here
from vivace.cli.app import main
from vivace.core.errors import UsageError
from vivace.devices.collectives import Wire
from vivace.devices.prediction.measured import laws
from vivace.devices.prediction.processes import Share, Spread, Wires, latency_of, moved, seconds_of
from vivace.testing import tiny_training

LATENCY = laws().processes_latency_seconds
WIRE = Wire(LATENCY, 1e9)
EXCHANGES = {
    "summing": {4: 2 * LATENCY, 8_000_000: 2 * LATENCY + 8e-3},
    "gathering": {4: LATENCY, 8_000_000: LATENCY + 4e-3},
    "handing": {4: LATENCY, 8_000_000: LATENCY + 8e-3},
}
JOB = tiny_training.job()
BATCH = (torch.zeros(8, 12), torch.zeros(8, dtype=torch.long))


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Seconds of one process by its samples, in the place of a clock; two cores."""
    seconds: dict[int, float] = {}
    monkeypatch.setattr(here, "_seconds_of", lambda job, folder: seconds[job.batch_size])
    monkeypatch.setattr(here, "exchanges_here", lambda: EXCHANGES)
    machine = dataclasses.replace(here.detect(), cores_allowed=2)
    monkeypatch.setattr(here, "detect", lambda: machine)
    return seconds


def test_two_processes_are_predicted_by_the_law_from_the_share_of_one(timed: dict[int, float]) -> None:
    timed |= {64: 0.02, 32: 0.011}

    found = vv.predict(JOB, on="here", count=[1, 2], batch=64, layouts=True)
    one, two = found.line("here", 1), found.line("here", 2)

    bytes_ = 4.0 * sum(parameter.numel() for parameter in JOB.model().parameters())
    tensors = len(list(JOB.model().parameters()))
    share = Share(Spread.DATA, 2, 0.011, 0.011, 3, bytes_, tensors)
    expected = seconds_of([share], Wires(WIRE, WIRE, WIRE), laws().processes.parameters)[0]
    assert one.seconds is not None and one.seconds.value == pytest.approx(0.02)
    assert two.seconds is not None and two.seconds.value == pytest.approx(expected, rel=1e-3)
    assert two.seconds.high / two.seconds.value == pytest.approx(laws().processes.factor95)
    assert (one.label, two.label) == ("PREDICTED", "PREDICTED")
    assert "one process with 32 samples and one thread took 11 ms here, MEASURED" in two.basis
    assert [best.layout.sharding for best in found.layouts[0].best] == [0, 3]
    assert "times the first: exchanges take" in found.layouts[0].best[1].reason


def test_what_was_not_measured_of_processes_is_refused(timed: dict[int, float]) -> None:
    timed |= {64: 0.9, 32: 0.5}

    found = vv.predict(JOB, on="here", count=[2, 3, 4], batch=64)

    assert [line.seconds for line in found.lines] == [None] * 3
    assert "no measurement of seconds of one process 0.5" in found.line("here", 2).refusal
    assert found.line("here", 3).refusal == "no measurement of processes 3; measured are 2 to 2"
    assert found.line("here", 4).refusal == "no measurement of processes 4; measured are 2 to 2"


def test_a_step_larger_than_was_measured_has_a_wider_interval_and_says_so(timed: dict[int, float]) -> None:
    law = laws().processes
    most = law.bounds["seconds_of_one_process"][1]
    timed[32] = 2 * most

    found = vv.predict(JOB, on="here", count=2, batch=64, layouts=True)

    line, wider = found.line("here", 2), law.beyond.factor
    assert line.seconds is not None
    assert wider > 1
    assert line.seconds.high / line.seconds.value == pytest.approx(law.factor95 * wider)
    assert line.basis.endswith(f"larger than any step that was measured: interval widened by {wider:.2f}")
    (layouts,) = found.layouts
    assert [one.seconds.high / one.seconds.value for one in layouts.best] == pytest.approx([law.factor95 * wider] * 2)


def test_a_batch_that_does_not_divide_waits_for_the_process_that_has_more_of_it(timed: dict[int, float]) -> None:
    timed[33] = 0.012

    line = vv.predict(JOB, on="here", count=2, batch=65).line("here", 2)

    assert "one process with 33 samples" in line.basis
    assert line.samples_per_second is not None and line.seconds is not None
    assert line.samples_per_second.value == pytest.approx(65 / line.seconds.value)
    too_few = vv.predict(JOB, on="here", count=2, batch=1).line("here", 2)
    assert too_few.refusal == "a batch of 1 leaves some of 2 processes without a sample"


def test_two_processes_on_one_core_are_refused(timed: dict[int, float], monkeypatch: pytest.MonkeyPatch) -> None:
    machine = dataclasses.replace(here.detect(), cores_allowed=1)
    monkeypatch.setattr(here, "detect", lambda: machine)

    assert "2 processes on 1 core" in vv.predict(JOB, on="here", count=2, batch=64).line("here", 2).refusal


def test_other_devices_stand_beside_this_machine(timed: dict[int, float]) -> None:
    timed |= {64: 0.02, 32: 0.011}

    found = vv.predict(JOB, on=["h100-sxm", "here"], count=2, batch=64, layouts=True)

    assert {line.device for line in found.lines} == {"h100-sxm", "here"}
    assert [(one.device, bool(one.best), bool(one.refusal)) for one in found.layouts] == [
        ("here", True, False), ("h100-sxm", False, True),
    ]  # fmt: skip
    assert len(found.notes) == 3


@pytest.mark.parametrize(
    ("work", "asked", "said"),
    [
        (vv.Transformer(2, 64, 4, 32), {"batch": 8}, "give a vivace.Training"),
        (JOB, {"precision": "bf16"}, "in f32 only"),
        (dataclasses.replace(JOB, data=[BATCH], batch_size=None), {}, "data gives whole batches"),
        (JOB, {"prices": {"here": 1.0}}, "prices has here"),
    ],
)
def test_what_this_machine_cannot_be_asked_is_refused(work: object, asked: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        vv.predict(work, on="here", count=2, **asked)  # type: ignore[arg-type]


def test_what_the_framework_adds_grows_with_the_latency_and_ratios_stay() -> None:
    law = laws().processes
    slow = Wires(*[Wire(3 * LATENCY, 1e9)] * 3)

    found = moved(law.parameters, LATENCY, slow) - law.parameters

    assert latency_of(slow) == pytest.approx(3 * LATENCY)
    assert found[0] == 0.0
    assert [round(float(change / math.log(3)), 6) for change in found[1:5]] == [1, 1, 1, 0]


@pytest.mark.slow
def test_a_job_is_timed_and_predicted_on_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "job.py").write_text("from vivace.testing import tiny_training\njob = tiny_training.job()\n")

    assert main(["predict", f"{tmp_path}/job.py:job", "--on", "here", "--count", "1,2", "--batch", "64", "--json"]) == 0

    lines = json.loads(capsys.readouterr().out)["lines"]
    assert [line["count"] for line in lines] == [1, 2]
    assert lines[0]["seconds"]["low"] <= lines[0]["seconds"]["value"]
    assert lines[1]["seconds"] is not None or lines[1]["refusal"]
