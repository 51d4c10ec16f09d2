"""Branches run apart only where their measured times say that it pays; a chain has none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from vivace.api.step_plans import no_work
from vivace.core.errors import NotApplicable, UsageError
from vivace.runtimes.capture import capture
from vivace.techniques.parallel.parallel_branches import ParallelBranches, seconds_of

CHAIN = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)).eval()
X = torch.randn(4, 8)


def test_every_operator_is_timed() -> None:
    model = capture(CHAIN, (X,)).model

    seconds = seconds_of(model.program, [X], 1)

    assert len(seconds) == 3
    assert all(one > 0 for one in seconds)


@pytest.mark.parametrize("lanes", [1, 10, True, "2"])
def test_lanes_that_cannot_be_are_refused(lanes: Any) -> None:
    with pytest.raises(UsageError, match="allowed are 2 to 9"):
        ParallelBranches(lanes)


def test_without_an_example_there_is_nothing_to_time() -> None:
    model = capture(CHAIN, (X,)).model

    with pytest.raises(NotApplicable, match="no example call"):
        ParallelBranches().apply(model, no_work())
