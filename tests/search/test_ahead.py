"""Interpreters that start ahead are those that the end of a search asks for, and time is planned with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

import vivace as vv
from search.toys import InferenceMode, trial
from vivace.core.plan import Plan
from vivace.measure.child_environment import child_environment
from vivace.measure.clock import FakeClock
from vivace.measure.forking import reserve
from vivace.search.caches import compiler_variables
from vivace.search.prepare import original_arm
from vivace.search.schedule import FORKED_SECONDS, SPARE, Schedule
from vivace.search.verdict.ahead import Interpreters


def test_a_search_asks_for_exactly_what_was_started_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Mapping[str, str], Sequence[str]]] = []
    started: list[reserve.Wanted] = []
    make = reserve.Reserve.__init__

    def noted(self: reserve.Reserve, wanted: Sequence[reserve.Wanted]) -> None:
        started.extend(wanted)
        make(self, ())

    monkeypatch.setattr(reserve.Reserve, "__init__", noted)
    monkeypatch.setattr(reserve.Reserve, "take", lambda self, *kind: asked.append(kind))
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))
    work = vv.Workload(model, inputs=(torch.randn(4, 64),))

    vv.optimize(work, time=20, out=tmp_path / "fast", plan=["inference-mode"], preset="quick")

    wanted = [(child_environment(one.variables), tuple(one.preload)) for one in started]
    assert len(wanted) == 2 * 3 + 1
    for kind in wanted:
        assert asked.count(kind) >= wanted.count(kind)


def test_a_model_and_its_artifact_are_wanted_in_pairs(tmp_path: Path) -> None:
    work = vv.Workload(nn.Linear(2, 2), inputs=(torch.randn(1, 2),))
    wanted = Interpreters(original_arm(work), compiler_variables(tmp_path)).wanted(3)

    loads = [any(module == "vivace.artifact.load" for module in one.preload) for one in wanted]
    assert loads == [False, True] * 3 + [True]


def planned(pairs: int, check: bool) -> Schedule:
    """Time to confirm something that loads at once, with so much ready. An interpreter takes 2 s more than a fork."""
    clock = FakeClock()
    return Schedule(
        120, clock.now(), 3, clock, opening_seconds=5.0, race_opening_seconds=3.0, warmed_seconds=2.0,
        loading_seconds=1.0, pairs_ahead=lambda: pairs, is_check_ahead=lambda: check,
    )  # fmt: skip


def test_what_has_started_ahead_is_planned_without_its_start() -> None:
    leader = trial(Plan.of([InferenceMode()]), 1.5)
    none, one, all_of_them = (planned(count, False).confirm_seconds(leader) for count in (0, 1, 3))

    assert none - one > SPARE * 2.0  # the first pair starts its two interpreters before it opens them one by one
    assert one - all_of_them == pytest.approx(2 * SPARE * 1.3 * 2.0)
    assert planned(9, False).confirm_seconds(leader) == all_of_them
    assert all_of_them - planned(3, True).confirm_seconds(leader) == pytest.approx(2.0)
    assert planned(3, True).publish_seconds(leader) == pytest.approx(2 * FORKED_SECONDS)
