"""What an attribution finds without measuring, and that nothing that goes wrong is raised."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from search.toys import FACTS, Engine, Halve, InferenceMode, trial
from vivace.core.errors import DiskFull, EnvironmentFault, WorkerFailure
from vivace.core.measurement import ArmTimes, Comparison, Interval, Outcome, SpeedVerdict
from vivace.core.plan import Plan
from vivace.core.quality import Quality, QualityVerdict
from vivace.core.result import Result, Rung, Status, Trial
from vivace.measure.clock import FakeClock
from vivace.report.progress import SilentProgress
from vivace.search.account.bench import NO_TIME, Bench
from vivace.search.schedule import Schedule

WINNER, HALVE, MODE = Plan((Halve(), InferenceMode(), Engine())), Plan((Halve(),)), Plan((Halve(), InferenceMode()))
TIMES = ArmTimes(0.010, None, None, 100, 0.1, 0.1, True, 0)
COMPARISON = Comparison(Interval(2, 1.9, 2.1), SpeedVerdict.FASTER, TIMES, TIMES, 20, 3, 0.01, ((2.0,),))
HELD = Quality(QualityVerdict.HELD, "toy", 100, 0.01)
CRASH = WorkerFailure(Outcome.CRASHED, "SIGSEGV in convert")


@dataclasses.dataclass
class FalseLaboratory:
    """Begins to build, then raises what it is given; remembers what it was asked to build."""

    folder: Path
    error: Exception
    asked: list[Plan] = dataclasses.field(default_factory=list)

    def program(self, plan: Plan) -> Path:
        return self.folder / str(plan)

    def build(self, plan: Plan, seconds: float) -> Path:
        self.asked.append(plan)
        self.program(plan).mkdir()
        raise self.error


def bench(
    folder: Path, error: Exception = CRASH, left: float = 600.0, trials: Sequence[Trial] = (), rung: Rung | None = None
) -> tuple[Bench, Any]:
    """A bench with a confirmed winner, with this many seconds left of ten minutes."""
    clock, laboratory = FakeClock(), FalseLaboratory(folder, error)
    all_trials = (trial(WINNER, 2.0).replace(confirmed=COMPARISON), *trials)
    result = Result("toy", Status.FASTER, WINNER, COMPARISON, HELD, rung, all_trials, 0.01, {})
    schedule = Schedule(600.0, clock.now(), 3, clock)
    clock.advance(600.0 - left)
    return Bench(laboratory, schedule, SilentProgress(), result), laboratory  # type: ignore[arg-type]


def test_what_was_confirmed_is_not_measured_again(tmp_path: Path) -> None:
    made, laboratory = bench(tmp_path, rung=Rung(MODE, dataclasses.replace(COMPARISON, restarts=5)))

    assert (made.find(WINNER).speedup, made.find(WINNER).restarts) == (COMPARISON.speedup, 3)
    assert made.find(MODE).restarts == 5
    assert laboratory.asked == []


def test_a_speed_from_the_race_is_never_taken(tmp_path: Path) -> None:
    made, laboratory = bench(tmp_path, trials=[trial(HALVE, 1.5)])

    assert made.find(HALVE).speedup is None
    assert laboratory.asked == [HALVE]


def test_what_misbehaved_in_the_search_is_not_tried_again(tmp_path: Path) -> None:
    refused = trial(HALVE, None, Outcome.QUALITY_FAILED).replace(reason="drop 0.1 is above the budget 0.01")
    made, laboratory = bench(tmp_path, trials=[refused])

    assert made.find(HALVE).reason == "quality failed: drop 0.1 is above the budget 0.01"
    assert laboratory.asked == []


def test_without_time_nothing_is_built_and_the_artifact_is_not_kept_waiting(tmp_path: Path) -> None:
    made, laboratory = bench(tmp_path, left=15.0)

    found = made.attribute(FACTS)

    assert {part.reason for part in found.left_out} == {NO_TIME}
    assert found.steps[-1].speedup == COMPARISON.speedup
    assert laboratory.asked == []


@pytest.mark.parametrize(
    "error",
    [CRASH, DiskFull("the disk is full: here"), OSError(28, "No space left"), EnvironmentFault("the original broke")],
    ids=["crash", "full disk", "no space", "original"],
)
def test_what_goes_wrong_is_told_and_leaves_nothing_on_the_disk(tmp_path: Path, error: Exception) -> None:
    made, laboratory = bench(tmp_path, error)

    found = made.find(HALVE)

    assert (found.speedup, found.reason) == (None, str(error))
    assert laboratory.asked == [HALVE]
    assert list(tmp_path.iterdir()) == []
