"""A small artifact, made without a search."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from vivace.artifact import golden, save
from vivace.artifact.manifest import Golden, Manifest
from vivace.core.technique import Effect
from vivace.data import samples
from vivace.devices.machine import detect
from vivace.runtimes import store
from vivace.runtimes.capture import capture
from vivace.search.calls.inputs import perturbed


def network() -> nn.Module:
    """A seeded network."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).eval()


def manifest(golden_calls: Golden) -> Manifest:
    """A manifest as `optimize` writes it."""
    return Manifest(
        vivace_version="0", name="toy", created="2026-01-01T00:00:00+00:00", status="faster", plan=[],
        plan_name="original", form="torch", executes_native_code=False, accepts="x", proved_on_shapes=[[[5, 6]]],
        machine=detect().to_json(), versions={}, speed={}, quality={}, golden=golden_calls, files={},
    )  # fmt: skip


def make(folder: Path, work: Path) -> Path:
    """Write an artifact at `folder`."""
    torch.manual_seed(1)
    model = capture(network(), (torch.randn(5, 6),)).model
    store.save(model, work / "program")
    call = model.signature.call
    calls = samples.write(work / "calls", perturbed([torch.randn(5, 6)], 6), call, 1)
    save.stage_program(work / "program", work / "staged")
    recorded = golden.Recorder().record(str(work / "staged"), str(calls), Effect.EXACT.value)
    save.seal(work / "staged", manifest(Golden(**recorded)), {"results.json": "{}\n", "README.md": "toy\n"})
    save.publish(work / "staged", folder)
    return folder


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """An artifact in a folder of its own."""
    return make(tmp_path / "fast", tmp_path / "work")
