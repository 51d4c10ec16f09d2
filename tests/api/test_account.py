"""What is said after the verdict: ceilings that were measured or why not, and what leaving a technique out costs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from vivace.api import account as accounting
from vivace.core.cost import Cost
from vivace.core.machine import Ceiling, Machine
from vivace.core.measurement import ArmTimes, Comparison, Interval, Outcome, SpeedVerdict
from vivace.core.plan import Plan
from vivace.core.quality import Quality, QualityVerdict
from vivace.core.registry import techniques
from vivace.core.result import Result, Status, Trial, TrialStage
from vivace.devices import ceiling_store

MACHINE = Machine("p", "x86_64", (), 2, 2, 1 << 30, "Linux")
COST = Cost(flops=1e9, weight_bytes=0, activation_bytes=0, operators=1)
KINDS = techniques()
REWRITE, COMPILER, MODE = (KINDS[name]() for name in ("fold-conv-batchnorm", "openvino", "inference-mode"))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def _raced(value: float, *plan: Any) -> Trial:
    return Trial(Plan(plan), Outcome.OK, TrialStage.SEARCH, speedup=Interval(value, value * 0.9, value * 1.1))


def _result(plan: Plan, *trials: Trial) -> Result:
    times = ArmTimes(0.002, None, None, 100, 0.1, 0.2, True, 1000)
    comparison = Comparison(Interval(2.0, 1.9, 2.1), SpeedVerdict.FASTER, times, times, 20, 3, 0.01, ((2.0,),))
    quality = Quality(QualityVerdict.HELD, "any", 500, 0.01)
    return Result("job", Status.FASTER, plan, comparison, quality, None, trials, 0.01, {})


def test_a_gain_is_the_winner_over_the_same_plan_without_the_technique() -> None:
    winner = (REWRITE, MODE, COMPILER)
    result = _result(Plan(winner), _raced(3.0, *winner), _raced(2.0, MODE, COMPILER), _raced(1.1, MODE))

    (gain,) = accounting.gains_of(result)

    assert (gain.technique, gain.speedup.value) == ("fold-conv-batchnorm", pytest.approx(1.5))
    assert (gain.speedup.low, gain.speedup.high) == (pytest.approx(2.7 / 2.2), pytest.approx(3.3 / 1.8))


def test_a_compiler_alone_is_measured_against_the_original() -> None:
    result = _result(Plan((COMPILER,)), _raced(3.0, COMPILER))

    assert [gain.speedup.value for gain in accounting.gains_of(result)] == [3.0]


def test_what_the_race_did_not_see_has_no_gain() -> None:
    assert accounting.gains_of(_result(Plan((REWRITE, COMPILER)), _raced(3.0, REWRITE, COMPILER))) == ()


def test_ceilings_that_doctor_kept_are_used(tmp_path: Path) -> None:
    kept = (Ceiling(1, {"f32": 100.0}, 10.0),)
    ceiling_store.keep(dataclasses.replace(MACHINE, ceilings=kept))

    assert accounting.ceilings_for([COST], MACHINE, tmp_path / "log", 0.0) == (
        kept,
        "MEASURED by vivace doctor on this machine",
    )


def test_without_time_or_kept_ceilings_nothing_is_made_up(tmp_path: Path) -> None:
    assert accounting.ceilings_for([COST], MACHINE, tmp_path / "log", 1.0) == ((), accounting.NO_TIME)


@pytest.mark.slow
def test_ceilings_are_measured_in_a_worker_at_the_precisions_and_threads_that_are_asked(tmp_path: Path) -> None:
    costs = [COST, COST.replace(precision="bf16")]

    (ceiling,), told = accounting.ceilings_for(costs, MACHINE, tmp_path / "log", 60.0)

    assert (ceiling.threads, set(ceiling.gflops)) == (1, {"f32", "bf16"})
    assert ceiling.gflops["f32"] > 1 and told.startswith("MEASURED")
