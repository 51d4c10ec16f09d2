"""`measure` compares whatever two sides are given: modules, files, artifacts and plans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import vivace as vv
from vivace.api.sides import Sides
from vivace.core.errors import UsageError
from vivace.core.measurement import SpeedVerdict
from vivace.core.plan import Plan
from vivace.core.registry import techniques
from vivace.data import samples
from vivace.measure.process import Limits


class Sums(nn.Module):
    """Adds in a loop, so that its time is known to grow."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.rounds):
            x = x + 0.001
        return x


def sides(folder: Path, work: vv.Workload | None = None) -> Sides:
    return Sides(folder, work, False, Limits())


def test_without_an_example_call_neither_side_can_be_measured(tmp_path: Path) -> None:
    one = sides(tmp_path).open(Sums(1), "A")

    with pytest.raises(UsageError, match="neither side says how it is called"):
        sides(tmp_path).calls(one, one, None)


def test_a_plan_without_a_workload_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="A is a plan, original; give work="):
        sides(tmp_path).open(Plan(), "A")


@pytest.mark.parametrize("given", [3, None, {"model": 1}])
def test_what_is_no_side_is_refused_with_what_is_allowed(tmp_path: Path, given: Any) -> None:
    with pytest.raises(UsageError, match=r"B is a .*; allowed are a Workload"):
        sides(tmp_path).open(given, "B")


def test_a_workloads_example_becomes_distinct_calls(tmp_path: Path) -> None:
    work = vv.Workload(Sums(1), inputs=(torch.ones(4, 3),))
    one = sides(tmp_path).open(work, "A")

    stored = samples.read(sides(tmp_path).calls(one, one, None))

    assert len(stored) >= 8
    assert len({leaves[0].numpy().tobytes() for leaves in stored}) == len(stored)


@pytest.mark.slow
def test_more_work_is_slower_and_the_answers_are_compared() -> None:
    found = vv.measure(Sums(60), Sums(20), inputs=(torch.ones(64, 64),), time="6s")

    assert found.verdict is SpeedVerdict.FASTER
    assert 1.5 < found.speedup.value < 4
    assert "SQNR" in found.note
    assert found.restarts >= 3


@pytest.mark.slow
def test_two_plans_of_one_workload_are_compared() -> None:
    work = vv.Workload(nn.Sequential(*[nn.Linear(32, 32) for _ in range(20)]).eval(), inputs=(torch.ones(4, 32),))
    inference = Plan((techniques()["inference-mode"](),))

    found = vv.measure(Plan(), inference, work=work, time="6s")

    assert found.speedup.value > 0.9
    assert "inf dB" in found.note or "SQNR" in found.note
