"""The time to a target score as a function of the batch."""

from __future__ import annotations

import pytest
import torch

import vivace as vv
from vivace.core.errors import UsageError
from vivace.core.prediction.work import Transformer
from vivace.devices.prediction.convergence import fit_convergence
from vivace.testing import tiny_training

GPT = Transformer(layers=24, width=2048, heads=16, sequence=2048)
RUNS = [(64, 1e6), (256, 1.3e6), (1024, 2.5e6)]


def test_the_time_to_a_target_is_told_for_every_batch_that_was_run() -> None:
    found = vv.predict(GPT, on="h100-sxm", count=8, batch=512, runs=RUNS)
    law = fit_convergence(RUNS)

    assert [(one.device, one.count, one.batch, one.label) for one in found.targets] == [
        ("h100-sxm", 8, size, "PREDICTED") for size in (64, 256, 512, 1024)
    ]
    assert found.targets[2].seconds == found.lines[0].target_seconds
    for one in found.targets:
        alone = vv.predict(GPT, on="h100-sxm", count=8, batch=one.batch).lines[0].samples_per_second
        assert alone is not None
        assert one.seconds == law.seconds(one.batch, alone)
        assert one.seconds.low < one.seconds.value < one.seconds.high


def test_batches_that_do_not_divide_among_the_devices_are_left_out() -> None:
    found = vv.predict(GPT, on="h100-sxm", count=[8, 128], batch=512, runs=RUNS)

    assert [one.batch for one in found.targets if one.count == 128] == [256, 512, 1024]


def test_batches_that_a_job_in_code_cannot_be_counted_with_are_left_out() -> None:
    """It reads numbers, so that it runs on the processor only, on no more samples than its data give."""

    class Reading(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(12, tiny_training.CLASSES)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.layer(x) * float(x.sum().item() * 0 + 1)
            return found

    job = tiny_training.job(model=Reading)
    runs = [(4, 1000.0), (8, 1100.0), (1024, 3000.0)]

    found = vv.predict(job, on="h100-sxm", batch=8, runs=runs)

    assert [one.batch for one in found.targets] == [4, 8]


def test_calls_reach_no_target() -> None:
    work = vv.Workload(torch.nn.Linear(4, 2), inputs=(torch.zeros(8, 4),))
    with pytest.raises(UsageError, match="runs was given for a Workload, whose calls reach no target"):
        vv.predict(work, on="h100-sxm", runs=RUNS)
