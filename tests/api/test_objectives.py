"""Memory and size as objectives, by the front door: what is kept is less; the original where nothing is less."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import vivace as vv
from vivace.core.plan import Plan
from vivace.core.result import Status
from vivace.search.identity import size_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
LAYERS = 6
NARROW, WIDE = 1024, 4096
"""Of layers whose weights take 25 and 403 MB: beside the latter, what another engine takes for itself is little."""


def weight_bytes(width: int) -> int:
    return 4 * width * width * LAYERS


def workload(width: int) -> vv.Workload:
    """Weights and little else: a call of one sample reads all of them."""
    torch.manual_seed(0)
    layers = (layer for _ in range(LAYERS) for layer in (nn.Linear(width, width), nn.ReLU()))
    return vv.Workload(nn.Sequential(*layers).eval(), inputs=(torch.randn(1, width),), name="heavy")


def test_fewer_bytes_on_the_disk_win_for_size(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")

    result = vv.optimize(
        workload(NARROW),
        objective="size",
        time="90s",
        out=tmp_path / "fast",
        plan=["onnx-weight-only", "onnx-runtime"],
    )

    fit = {str(trial.plan): trial.size_bytes for trial in result.candidates if trial.outcome.value == "ok"}
    assert result.status is Status.FASTER, fit
    assert any(technique.name() == "onnx-weight-only" for technique in result.plan)
    stored = size_of(tmp_path / "fast" / "program")
    assert stored < 0.3 * weight_bytes(NARROW)
    assert fit[str(result.plan)] == pytest.approx(stored, rel=0.01)


@pytest.mark.timeout(600)
def test_less_peak_memory_wins_for_memory(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")

    result = vv.optimize(
        workload(WIDE),
        objective="memory",
        time="120s",
        out=tmp_path / "fast",
        plan=["onnx-weight-only", "onnx-runtime"],
    )

    before, after = result.comparison.baseline.peak_memory_bytes, result.comparison.candidate.peak_memory_bytes
    assert result.status is Status.FASTER, [(str(t.plan), t.outcome, t.peak_memory_bytes) for t in result.candidates]
    assert any(technique.name() == "onnx-weight-only" for technique in result.plan)
    assert before - after > 0.2 * weight_bytes(WIDE)


def test_where_nothing_is_smaller_the_original_is_kept_although_something_is_faster(tmp_path: Path) -> None:
    result = vv.optimize(
        vv.Workload(nn.Sequential(nn.Linear(64, 64), nn.ReLU()).eval(), inputs=(torch.randn(1, 64),), name="light"),
        objective="size",
        time="30s",
        out=tmp_path / "fast",
        only=["inference-mode", "threads"],
    )

    assert (result.status, result.plan) == (Status.NOTHING_FASTER, Plan())
    assert result.status.exit_code == 3
