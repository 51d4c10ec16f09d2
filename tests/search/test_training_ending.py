"""The time for choosing how to train: trials end when what is left is what delivering the best plan takes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vivace.api import step_plans
from vivace.api.step_plans import Choice
from vivace.core.measurement import ArmTimes, Comparison, Interval, SpeedVerdict
from vivace.core.plan import Plan
from vivace.core.quality import QualityVerdict
from vivace.measure.clock import FakeClock
from vivace.measure.process import Limits
from vivace.report.progress import SilentProgress
from vivace.search.training.ending import PAIR_OPENINGS, PAIRS, Ending
from vivace.testing.tiny_training import job

PROOF, RACE, SPARED = 2.0, 6.0, 3.0


def choice_of(monkeypatch: pytest.MonkeyPatch, clock: FakeClock, seconds: float, faster: float = 1.0) -> Choice:
    """One whose proofs and races take as long as is said, each plan so many times as fast as the one before."""

    def proof(*_: Any) -> Any:
        clock.advance(PROOF)
        return SimpleNamespace(verdict=QualityVerdict.HELD, reason="", notes=(), whole_step=False)

    def race(*_: Any) -> Comparison:
        clock.advance(RACE)
        arm = ArmTimes(*[0.0] * len(dataclasses.fields(ArmTimes)))  # type: ignore[arg-type]
        return Comparison(Interval(faster, faster, faster), SpeedVerdict.FASTER, arm, arm, 12, 1, 0.0, ())

    monkeypatch.setattr(step_plans, "SystemClock", lambda: clock)
    monkeypatch.setattr(Choice, "_proof", proof)
    monkeypatch.setattr(Choice, "_race", race)
    ending = Ending(spared_seconds=lambda: SPARED)
    return Choice(job(), seconds, (), (), False, Limits(), SilentProgress(), ending=ending)


def test_delivering_takes_a_proof_and_four_pairs_of_fresh_processes_and_a_diagnosis() -> None:
    ending = Ending(7.0, lambda: SPARED, {Plan(): PROOF}, {Plan(): RACE})

    assert ending.seconds(Plan()) == pytest.approx(1.5 * PROOF + PAIRS * (RACE + PAIR_OPENINGS * SPARED) + 7.0)


@pytest.mark.parametrize("faster", [1.0, 2.0])
@pytest.mark.parametrize("seconds", [70.0, 90.0])
def test_trials_leave_the_time_that_delivering_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seconds: float, faster: float
) -> None:
    clock = FakeClock()
    choice = choice_of(monkeypatch, clock, seconds, faster)
    began = clock.now()

    best, trials = choice.search(Plan(), seconds, tmp_path, tmp_path)

    spent, kept = clock.now() - began, choice.ending.seconds(best)
    assert spent + kept <= seconds < spent + kept + PROOF + RACE
    assert len(trials) > 1 and bool(len(best)) == (faster > 1)


def test_the_first_plan_is_tried_however_little_time_there_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    choice = choice_of(monkeypatch, FakeClock(), 5.0)

    _, trials = choice.search(Plan(), -3.0, tmp_path, tmp_path)

    assert len(trials) == 1


def test_a_search_that_another_follows_keeps_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = FakeClock()
    choice = choice_of(monkeypatch, clock, 30.0)
    began = clock.now()

    choice.search(Plan(), 30.0, tmp_path, tmp_path, is_last=False)

    assert 30.0 <= clock.now() - began < 30.0 + PROOF + RACE


def test_what_diagnosing_took_is_no_more_there(monkeypatch: pytest.MonkeyPatch) -> None:
    found = choice_of(monkeypatch, FakeClock(), 60.0).after(None, 10.0)  # type: ignore[arg-type]

    assert found.seconds == 50.0
    assert found.ending.diagnosis_seconds == 10.0 and found.ending.spared_seconds() == SPARED
