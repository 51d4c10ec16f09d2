"""Counting a job that does not run on tensors without memory: refused with numbers before this machine's is used up."""

from __future__ import annotations

import dataclasses
import resource

import numpy as np
import pytest
import torch
from torch import nn

import vivace as vv
from vivace.core.errors import EnvironmentFault
from vivace.measure import memory
from vivace.testing import tiny_training

SPARE = 1_000_000_000


def wide(size: int = 500) -> nn.Module:
    return nn.Sequential(nn.Linear(12, size), nn.Linear(size, size), nn.Linear(size, 8))


def job(model: object) -> vv.Training:
    """A loss that looks at numbers, which tensors without memory lack."""
    tiny = tiny_training.job()

    def loss(model: nn.Module, batch: object) -> torch.Tensor:
        found = tiny.loss(model, batch)
        return found if found.item() >= 0 else -found

    return dataclasses.replace(tiny, model=model, loss=loss, optimizer=lambda p: torch.optim.AdamW(p, 1e-3))


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: int(SPARE / memory.SPARE_SHARE))


def test_a_job_that_would_not_fit_here_is_refused_with_what_it_holds_before_it_is_made(little: None) -> None:
    """144,264,008 weights of 4 bytes: 577 MB, as much of gradients, twice as much of Adam."""
    made = []

    def model() -> nn.Module:
        made.append(torch.empty(0).device.type)
        return wide(12_000)

    said = r"holds 2.31 GB at the least \(weights, gradients, optimizer: 0.577 \+ 0.577 \+ 1.15\), of 1 GB"
    with pytest.raises(EnvironmentFault, match=said):
        vv.predict(job(model), on="h100-sxm")
    assert made == ["meta"]


def test_a_model_that_cannot_be_made_without_memory_is_stopped_at_what_is_free(little: None) -> None:
    def model() -> nn.Module:
        made = nn.Linear(12, 8)
        made.extra = nn.Parameter(torch.from_numpy(np.ones((18_000, 18_000), dtype=np.float32)))  # 1.3 GB
        return made

    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(EnvironmentFault, match=r"takes more than the 1 GB of memory"):
        vv.predict(job(model), on="h100-sxm")
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_a_job_that_fits_here_is_counted_as_before() -> None:
    line = vv.predict(job(wide), on="h100-sxm").lines[0]
    assert line.seconds is not None
