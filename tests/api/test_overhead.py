"""A tiny model: how far its call is from its arithmetic, and what an empty call through the same runtime takes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import nn

import vivace as vv
from vivace.api.overhead import beside_an_empty_call, overhead_of
from vivace.artifact.manifest import GOLDEN_CALLS, GOLDEN_OUTPUTS, PROGRAM
from vivace.core.compute import Reach
from vivace.core.machine import Ceiling
from vivace.core.measurement import ArmTimes, Comparison, Interval, SpeedVerdict
from vivace.core.plan import Plan
from vivace.core.quality import Quality, QualityVerdict
from vivace.core.result import Result, Status
from vivace.core.workload import Mix
from vivace.data import samples
from vivace.devices import ceiling_store
from vivace.devices.machine import detect
from vivace.measure.clock import FakeClock
from vivace.runtimes import store
from vivace.runtimes.capture import capture
from vivace.search.calls.inputs import perturbed
from vivace.search.schedule import Schedule

TIMES = ArmTimes(20e-6, None, None, 100, 0.1, 0.1, True, 0)
SAME = Comparison(Interval(1, 1, 1), SpeedVerdict.SAME, TIMES, TIMES, 20, 3, 0.01, ((1.0,),))
HELD = Quality(QualityVerdict.HELD, "the original itself", 1, 0.0)
RESULT = Result("tiny", Status.NOTHING_FASTER, Plan(), SAME, HELD, None, (), 0.01, {})
WINNER = Reach(20e-6, 0.1, "f32", 1, 100.0, 10.0, 0.2e-6, 0.01)


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)).eval()


def staged(folder: Path) -> Path:
    """An artifact that is being made: a program with its golden calls."""
    found = capture(tiny(), (torch.randn(4, 16),)).model
    store.save(found, folder / PROGRAM)
    program = store.load(folder / PROGRAM)
    calls = perturbed([torch.randn(4, 16)], 12)
    samples.write(folder / GOLDEN_CALLS, calls, found.signature.call, 1)
    samples.write_outputs(folder / GOLDEN_OUTPUTS, [program.run(leaves) for leaves in calls], found.signature.answer)
    return folder


def test_a_call_is_timed_beside_an_empty_one_in_processes_of_their_own(tmp_path: Path) -> None:
    folder = staged(tmp_path / "staged")

    seconds, share = beside_an_empty_call(folder, folder / GOLDEN_CALLS, tmp_path / "logs", 60.0)

    assert 0 < seconds < 1e-3
    assert 0 < share.low <= share.value <= share.high < 1


def test_without_time_the_floor_is_told_and_the_empty_call_is_not_made_up(tmp_path: Path) -> None:
    folder, late = staged(tmp_path / "staged"), Schedule(300.0, 0.0, 3, FakeClock([299.0]))

    found = overhead_of(RESULT, WINNER, folder, folder / GOLDEN_CALLS, tmp_path, late)

    assert (found.call_seconds, found.predicted_floor_seconds, found.form) == (20e-6, 0.2e-6, "torch")
    assert (found.empty_seconds, found.note) == (None, "was not measured: no time was left")


def test_a_program_that_cannot_be_emptied_is_told_and_raises_nothing(tmp_path: Path) -> None:
    folder = staged(tmp_path / "staged")
    model = store.read_model(folder / PROGRAM)
    store.save(model.replace(settings=model.settings.replace(instances=2)), folder / PROGRAM)

    found = overhead_of(RESULT, WINNER, folder, folder / GOLDEN_CALLS, tmp_path, Schedule(300.0, 0.0, 3, FakeClock()))

    assert found.empty_seconds is None
    assert found.note.startswith("was not measured: ") and "nothing to split" in found.note


def test_calls_in_several_shapes_have_no_empty_call(tmp_path: Path) -> None:
    folder = staged(tmp_path / "staged")
    stored = samples.read(folder / GOLDEN_CALLS)
    calls = [torch.randn(4, 16)], [torch.randn(8, 16)]
    mixed = samples.write(tmp_path / "mixed", calls, stored.call, 1, Mix((0, 1), (0.5, 0.5)))

    found = overhead_of(RESULT, WINNER, folder, mixed, tmp_path, Schedule(300.0, 0.0, 3, FakeClock()))

    assert found.note == "was not measured: calls come in several shapes"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_search_reports_the_overhead_of_a_tiny_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    kept = dataclasses.replace(detect(), ceilings=(Ceiling(threads, {"f32": 50.0}, 10.0),))
    assert ceiling_store.keep(kept)
    work = vv.Workload(tiny(), inputs=(torch.randn(4, 16),), name="tiny")

    result = vv.optimize(work, time="3m", out=tmp_path / "fast", only=["onnx-runtime"])

    assert result.wall_seconds < 180
    overhead = json.loads((tmp_path / "fast" / "results.json").read_text())["compute"]["overhead"]
    flops = 2 * 4 * (16 * 32 + 32 * 4)
    assert overhead["predicted_floor_seconds"] == pytest.approx(flops / 50e9)
    assert overhead["call_seconds"] == result.comparison.candidate.median_seconds
    assert overhead["empty_seconds"] < overhead["call_seconds"], overhead["note"]
