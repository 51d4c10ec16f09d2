"""A real winner, technique by technique; what it must serve to be worth it; and a dry run, all by the front door."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import vivace as vv
from vivace.api import preview
from vivace.core.plan import Plan
from vivace.core.registry import techniques
from vivace.core.result import Status


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
def test_a_winner_is_measured_technique_by_technique_and_says_when_it_pays(tmp_path: Path) -> None:
    result = vv.optimize(workload(), time="80s", out=tmp_path / "fast", plan=plan())

    assert result.status is Status.FASTER
    assert result.wall_seconds < 80
    threads, runtime = result.attribution.left_out  # type: ignore[union-attr]
    assert (str(threads.plan), str(runtime.plan)) == ("onnx-runtime", "threads(count=2)")
    assert runtime.restarts == 1
    assert runtime.worth is not None and runtime.worth.low > 1
    assert threads.speedup is not None and threads.speedup.low > 1
    first, last = result.attribution.steps  # type: ignore[union-attr]
    assert first.speedup == runtime.speedup
    assert last.speedup == result.speedup
    assert result.break_even_calls is not None and result.break_even_calls > 1
    document = json.loads((tmp_path / "fast" / "results.json").read_text())
    assert document["attribution"]["left_out"][1]["worth"]["value"] == pytest.approx(runtime.worth.value)
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
