"""A made-up result with every kind of trial in it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from vivace.core.attribution import Attribution, LeftOut, Step
from vivace.core.forecast import Expected, Forecast
from vivace.core.measurement import ArmTimes, Comparison, Interval, Outcome, SpeedVerdict
from vivace.core.plan import Plan
from vivace.core.quality import Fidelity, Quality, QualityVerdict
from vivace.core.result import Result, Rung, Status, Trial, TrialStage
from vivace.core.technique import Effect, Family, Stage, Technique


@dataclasses.dataclass(frozen=True)
class Openvino(Technique):
    """A made-up technique."""

    stage = Stage.TARGET
    family = Family.SYSTEM
    effect = Effect.CHANGED
    source = "none"
    precision: str = ""

    def apply(self, model: Any, work: Any) -> Any:
        return model


@dataclasses.dataclass(frozen=True)
class Threads(Technique):
    """A made-up technique."""

    stage = Stage.PARALLEL
    family = Family.SYSTEM
    effect = Effect.EXACT
    source = "none"
    count: int = 0

    def apply(self, model: Any, work: Any) -> Any:
        return model


def times(median: float, p99: float | None = None, calls: int = 320) -> ArmTimes:
    return ArmTimes(median, median * 1.1, p99, calls, 0.5, median * 9, True, 210_000_000)


def comparison(low: float, value: float, high: float, verdict: SpeedVerdict = SpeedVerdict.FASTER) -> Comparison:
    base = 0.00277
    return Comparison(
        Interval(value, low, high),
        verdict,
        times(base),
        times(base / value, base / value * 1.5, 900),
        40,
        3,
        0.008,
        ((value, low, high),),
    )


HELD = Quality(
    QualityVerdict.HELD,
    "Tango's score test",
    550,
    0.01,
    0.985,
    0.9838,
    0.0012,
    0.0041,
    fidelity=Fidelity(41.0, 0.9999, 20.0, 0.998, 0.992, 550),
)
CANNOT_TELL = Quality(
    QualityVerdict.CANNOT_TELL, "Tango's score test", 90, 0.01, 0.98, 0.98, 0.0, 0.031, samples_needed=298
)
WINNER = Plan.of([Threads(1), Openvino("bf16")])
RUNG = Plan.of([Threads(1)])
ATTRIBUTION = Attribution(
    (
        Step(Threads(1), RUNG, Interval(1.3, 1.28, 1.32), 3),
        Step(Openvino("bf16"), WINNER, Interval(2.31, 2.27, 2.35), 3),
    ),
    (
        LeftOut(Threads(1), Plan.of([Openvino("bf16")]), None, None, reason="crashed: SIGSEGV in load"),
        LeftOut(Openvino("bf16"), RUNG, Interval(1.3, 1.28, 1.32), Interval(1.78, 1.72, 1.84), 3),
    ),
)
SLOW = Plan.of([Openvino("f32")])


@pytest.fixture
def result() -> Result:
    """2.31x faster, confirmed, with a rung, a slower plan, a crash and an unsupported one."""
    slower = comparison(0.90, 0.92, 0.94, SpeedVerdict.SLOWER).speedup
    trials = (
        Trial(RUNG, Outcome.OK, TrialStage.LADDER, speedup=Interval(1.3, 1.28, 1.32)),
        Trial(SLOW, Outcome.NOT_FASTER, TrialStage.SEARCH, "below the leader", speedup=slower),
        Trial(Plan.of([Openvino("f16")]), Outcome.CRASHED, TrialStage.SEARCH, "SIGSEGV while converting"),
        Trial(Plan.of([Openvino("int8")]), Outcome.UNSUPPORTED, TrialStage.SEARCH, "needs calibration data"),
        Trial(
            WINNER,
            Outcome.OK,
            TrialStage.FINALIST,
            speedup=Interval(2.4, 2.2, 2.5),
            quality=HELD,
            confirmed=comparison(2.27, 2.31, 2.35),
            size_bytes=1_234_567,
            build_seconds=3.2,
        ),
    )
    return Result(
        name="digits-cnn",
        status=Status.FASTER,
        plan=WINNER,
        comparison=comparison(2.27, 2.31, 2.35),
        quality=HELD,
        best_rung=Rung(RUNG, comparison(1.28, 1.3, 1.32)),
        candidates=trials,
        noise_floor=0.008,
        conditions={
            "machine": {"processor": "AMD EPYC", "cores_allowed": 2},
            "versions": {"torch": "2.13.0"},
            "environment": {"load": 0.3},
            "seed": 0,
        },
        wall_seconds=118.4,
        artifact=Path("fast"),
        attribution=ATTRIBUTION,
        break_even_calls=2345,
    )


@pytest.fixture
def crowded(result: Result) -> Result:
    """A result with far more losers, rungs and words than a screen holds."""
    loser = Trial(SLOW, Outcome.TIMEOUT, TrialStage.SEARCH, "compile took longer than 300 s. " * 20)
    rung = Trial(RUNG, Outcome.OK, TrialStage.LADDER, "word " * 99, speedup=Interval(1.3, 1.28, 1.32))
    plan = Plan(WINNER.techniques * 9)
    finalists = [t.replace(plan=plan) for t in result.candidates[-1:] * 5]
    candidates = (*[loser] * 90, *[rung] * 9, *finalists)
    attribution = Attribution(ATTRIBUTION.steps * 9, ATTRIBUTION.left_out * 9)
    notes = ("a note " * 40,) * 9
    return dataclasses.replace(result, candidates=candidates, plan=plan, notes=notes, attribution=attribution)


@pytest.fixture
def forecast(result: Result) -> Forecast:
    """Twenty-five plans in two minutes."""
    plans = (Expected(result.plan, 1.5, 11.4),) * 25
    return Forecast("job", plans, {"tf32": "needs a CUDA device"}, ("fixed",), 120.0, 83.4, 5_200_000)


@pytest.fixture
def uncertified(result: Result) -> Result:
    """Something was faster, and too few samples could say whether it is still right."""
    unsure = result.candidates[1].replace(outcome=Outcome.QUALITY_UNKNOWN, quality=CANNOT_TELL)
    itself = Quality(QualityVerdict.HELD, "the original itself", 550, 0.0)
    return dataclasses.replace(
        result,
        status=Status.QUALITY_UNCERTIFIED,
        quality=itself,
        plan=Plan(),
        candidates=(unsure,),
        attribution=None,
        break_even_calls=None,
    )


@pytest.fixture
def nothing(result: Result) -> Result:
    """The original was kept."""
    same = comparison(0.99, 1.0, 1.01, SpeedVerdict.SAME)
    kept = {"plan": Plan(), "best_rung": None, "attribution": None, "break_even_calls": None}
    return dataclasses.replace(result, status=Status.NOTHING_FASTER, comparison=same, **kept)
