"""The whole promise in one file: a tiny real model in, a proven faster artifact out, reloaded without its class."""

from __future__ import annotations

import json
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
import torch
from torch import nn

import vivace as vv
from vivace.core.measurement import SpeedVerdict
from vivace.core.quality import QualityVerdict
from vivace.report.headline import headline
from vivace.report.html.page import render
from vivace.report.reading import read_run


class Slow(nn.Module):
    """Answers by many small operators, so that any compiler has something to win."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(24))
        self.head = nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x)) * 0.5 + x.sin() * 0.1 + 0.01
        return self.head(x)


def workload() -> vv.Workload:
    torch.manual_seed(0)
    model = Slow().eval()
    x = torch.randn(1200, 32)
    with torch.no_grad():
        y = model(x).argmax(1)
    pairs = [(x[i : i + 40], y[i : i + 40]) for i in range(0, 1200, 40)]
    return vv.Workload(model, inputs=(x[:8],), data=pairs, metric=vv.metrics.accuracy, name="tiny")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_promise_holds_from_workload_to_reloaded_artifact(tmp_path: Path) -> None:
    work = workload()

    result = vv.optimize(work, time="60s", out=tmp_path / "fast", only=["inference-mode", "onnx-runtime", "threads"])

    assert result.verdict is SpeedVerdict.FASTER
    assert result.speedup.low > 1
    assert result.quality.verdict is QualityVerdict.HELD
    assert result.plan.techniques
    assert result.comparison.restarts >= 3
    assert {trial.outcome.value for trial in result.candidates} <= {"ok", "not_faster", "unsupported"}
    x = work.inputs[0]
    torch.testing.assert_close(result.model(x), work.model(x), rtol=1e-3, atol=1e-4)  # type: ignore[operator]
    document = json.loads((tmp_path / "fast" / "results.json").read_text())
    assert document["speedup"]["value"] == pytest.approx(result.speedup.value)
    assert document["quality"]["verdict"] == "HELD"
    page = (tmp_path / "fast" / "report.html").read_text()
    assert page == render(read_run(tmp_path / "fast"))
    assert headline(read_run(tmp_path / "fast")) in unescape(page)
    assert json.loads((tmp_path / "fast" / "manifest.json").read_text())["batch_invariant"] is True  # so it is batched
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fast"]
    script = "import sys, torch, vivace; print(list(vivace.load(sys.argv[1])(torch.zeros(5, 32)).shape))"
    said = subprocess.run([sys.executable, "-c", script, str(tmp_path / "fast")], capture_output=True, text=True)
    assert (said.returncode, said.stdout.strip()) == (0, "[5, 3]"), said.stderr
