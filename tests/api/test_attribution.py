"""A real winner, technique by technique; what it must serve to be worth it; and a dry run, all by the front door."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import vivace as vv
from vivace.api import preview
from vivace.api.request import options_of
from vivace.core.plan import Plan
from vivace.core.quality import Quality, QualityVerdict
from vivace.core.registry import techniques
from vivace.core.result import Result, Status, TrialStage
from vivace.devices.machine import detect
from vivace.measure.clock import SystemClock
from vivace.report.progress import SilentProgress
from vivace.search.account.bench import Bench
from vivace.search.laboratory import Laboratory
from vivace.search.prepare import prepare
from vivace.search.schedule import Schedule
from vivace.search.verdict.confirm import timed


def workload() -> vv.Workload:
    """Many small operators, so that a runtime has something to win."""
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Sequential(nn.Linear(48, 48), nn.Tanh()) for _ in range(24)], nn.Linear(48, 4)).eval()
    x = torch.randn(1200, 48)
    with torch.no_grad():
        y = model(x).argmax(1)
    pairs = list(zip(x.split(40), y.split(40), strict=True))
    return vv.Workload(model, inputs=(x[:8],), data=pairs, metric=vv.metrics.accuracy, name="many-small")


def plan() -> Plan:
    known = techniques()
    return Plan.of([known["threads"](count=2), known["onnx-runtime"]()])  # type: ignore[call-arg]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_each_configuration_is_built_judged_and_measured_in_a_pair_of_processes(tmp_path: Path) -> None:
    work, winner = workload(), plan()
    options, prepared = options_of(work, time="4m"), prepare(work, tmp_path)
    schedule = Schedule(240.0, SystemClock().now(), 3)
    with Laboratory(prepared, options, tmp_path) as laboratory:
        laboratory.learn_original()
        schedule.opening_seconds = laboratory.opening_seconds
        trial = laboratory.attempt(winner, TrialStage.SEARCH, 60)
        rule = schedule.short_rule()
        trial = trial.replace(confirmed=timed(laboratory, winner, laboratory.spec(winner), 0.01, rule, 0.0))
        assert trial.confirmed is not None
        held = Quality(QualityVerdict.HELD, "not judged here", 0, 0.01)
        result = Result("x", Status.FASTER, winner, trial.confirmed, held, None, (trial,), 0.01, {})
        found = Bench(laboratory, schedule, SilentProgress(), result).attribute(prepared.work.facts | detect().facts())
        assert not laboratory.program(Plan(winner.techniques[1:])).exists()

    threads, runtime = found.left_out
    assert (str(threads.plan), str(runtime.plan)) == ("onnx-runtime", "threads(count=2)")
    assert (threads.restarts, runtime.restarts) == (1, 1), (threads.reason, runtime.reason)
    assert runtime.worth is not None and runtime.worth.low > 1
    assert threads.speedup is not None and threads.speedup.low > 1
    assert found.steps[0].speedup == runtime.speedup
    assert found.steps[1].speedup == trial.confirmed.speedup


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_search_delivers_in_time_with_an_interval_or_a_reason_for_each_technique(tmp_path: Path) -> None:
    began = SystemClock().now()
    result = vv.optimize(workload(), time="60s", out=tmp_path / "fast", plan=plan())
    took = SystemClock().now() - began

    assert result.status is Status.FASTER
    assert took - 1 < result.wall_seconds <= took < 60  # with the check of the artifact
    assert result.attribution is not None
    assert [str(part.technique) for part in result.attribution.left_out] == ["threads(count=2)", "onnx-runtime"]
    assert all((part.worth is None) == bool(part.reason) for part in result.attribution.left_out)
    assert result.attribution.steps[-1].speedup == result.speedup
    assert result.break_even_calls is not None and result.break_even_calls > 1
    document = json.loads((tmp_path / "fast" / "results.json").read_text())
    assert len(document["attribution"]["left_out"]) == 2
    assert document["break_even_calls"] == result.break_even_calls


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_for_a_single_call_the_original_is_kept_because_of_what_loading_takes(tmp_path: Path) -> None:
    result = vv.optimize(workload(), time="60s", out=tmp_path / "fast", plan=plan(), calls=1)

    assert result.status is Status.NOTHING_FASTER
    assert any("is faster a call, but loading it and 1 call take" in note for note in result.notes)
    assert result.conditions["calls"] == 1
    assert (result.attribution, result.break_even_calls) == (None, None)


def test_a_dry_run_lists_what_fits_into_the_time_with_what_it_takes() -> None:
    found = preview(workload(), time="2m", only=["inference-mode", "threads", "onnx-runtime", "openvino"])

    assert {"onnx-runtime", "openvino"} <= {str(expected.plan) for expected in found.plans}
    assert sum(expected.seconds for expected in found.plans) < found.total_seconds <= found.seconds == 120
    weights = sum(p.numel() * 4 for p in workload().model.parameters())  # type: ignore[union-attr]
    assert found.disk_bytes >= len(found.plans) * weights


@pytest.mark.parametrize("objective", ["memory", "size"])
def test_a_dry_run_for_bytes_predicts_those_of_the_weights_and_says_what_it_does_not(objective: str) -> None:
    found = preview(
        workload(), objective=objective, time="2m", only=["inference-mode", "onnx-weight-only", "onnx-runtime"]
    )

    held = {str(expected.plan): expected.weight_bytes for expected in found.plans}
    light = [held[plan] for plan in held if "weight-only" in plan]
    assert found.objective.value == objective
    assert 0 < max(light) < held["inference-mode"]
    assert sum("not predicted" in note for note in found.notes) == 1
