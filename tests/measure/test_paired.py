"""The paired comparison: blocks, stopping, verdicts; then real workers."""

from __future__ import annotations

import dataclasses
import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from vivace.core.errors import UsageError, WorkerFailure
from vivace.core.measurement import Interval, Outcome, SpeedVerdict
from vivace.core.structure import flatten
from vivace.core.workload import Mix
from vivace.data import samples
from vivace.measure.claims.caches import why_partly_cached
from vivace.measure.claims.conclude import conclude, decide, noise_floor_of, summary
from vivace.measure.clock import FakeClock
from vivace.measure.live import ArmSpec, Reading
from vivace.measure.paired import (
    Pair,
    StopRule,
    calls_per_block,
    compare,
    measure_noise,
)

QUICK = StopRule(max_blocks=12, max_seconds=3.0, warm_seconds=0.5, block_seconds=0.005)


class FakeArm:
    """An arm whose calls all take the same time."""

    def __init__(self, seconds: float, log: list[tuple[str, int, int]], name: str) -> None:
        self.seconds_per_call = seconds
        self.distinct_inputs = 8
        self.mix = None
        self.seconds: list[float] = []
        self._log = log
        self._name = name

    def time(self, start: int, calls: int) -> list[float]:
        self._log.append((self._name, start, calls))
        self.seconds += [self.seconds_per_call] * calls
        return [self.seconds_per_call] * calls

    def reading(self, since: int) -> Reading:
        return Reading(tuple(self.seconds[since:]), 0.1, 0.2, True, 100)


def fake_pair(baseline: float = 0.01, candidate: float = 0.005, seed: int = 0) -> tuple[Pair, list[Any]]:
    log: list[Any] = []
    arms: Any = FakeArm(baseline, log, "A"), FakeArm(candidate, log, "B")
    return Pair(arms[0], arms[1], 0.02, random.Random(seed)), log


def test_a_block_is_abba_over_the_same_inputs() -> None:
    pair, log = fake_pair()
    pair.blocks(1)
    outer, inner = log[0][0], log[1][0]
    assert log == [(outer, 0, 4), (inner, 0, 4), (inner, 4, 4), (outer, 4, 4)]
    assert {outer, inner} == {"A", "B"}


def test_an_arm_that_is_much_slower_makes_fewer_calls_but_walks_every_input() -> None:
    pair, log = fake_pair(0.01, 0.0001)
    pair.blocks(1)
    assert {(name, calls) for name, _, calls in log} == {("A", 8), ("B", 200)}
    assert pair.log_ratios == pytest.approx([math.log(100)])


def test_the_first_letter_is_random() -> None:
    pair, log = fake_pair()
    pair.blocks(20)
    assert {log[4 * block][0] for block in range(20)} == {"A", "B"}


def test_the_ratio_is_baseline_over_candidate_whichever_came_first() -> None:
    pair, _ = fake_pair(0.03, 0.01)
    pair.blocks(8)
    assert pair.log_ratios == pytest.approx([math.log(3)] * 8)


def test_the_next_block_goes_on_with_the_next_inputs() -> None:
    pair, log = fake_pair()
    pair.blocks(2)
    assert [start for _, start, _ in log[4:]] == [8, 8, 12, 12]


def test_calls_per_block_follow_the_faster_arm() -> None:
    assert calls_per_block(0.02, 0.1, 0.001) == 20
    assert calls_per_block(0.02, 1.0, 2.0) == 1


def test_a_run_stops_on_width_only_after_the_least_blocks() -> None:
    pair, _ = fake_pair()
    pair.run(StopRule(), FakeClock())
    assert len(pair.log_ratios) == 10


def test_a_run_stops_at_its_time_whatever_the_width() -> None:
    pair, _ = fake_pair()
    pair.run(StopRule(max_seconds=7.0), FakeClock([0.0] + [1.0] * 50))
    assert len(pair.log_ratios) == 6


def test_a_slow_model_gets_the_blocks_that_make_an_interval() -> None:
    pair, _ = fake_pair()
    pair.run(StopRule(max_seconds=1.0), FakeClock([0.0] + [1.0] * 50))
    assert len(pair.log_ratios) == 6


def test_a_run_ends_early_when_it_is_hopeless() -> None:
    pair, _ = fake_pair()
    pair.run(StopRule(), FakeClock(), hopeless=lambda speedup: speedup.high < 3.0)
    assert len(pair.log_ratios) == 6


def test_a_wide_interval_goes_on_to_the_most_blocks() -> None:
    rule = StopRule(max_blocks=30)
    chance = random.Random(0)
    noisy = [chance.gauss(0, 0.5) for _ in range(29)]
    assert not rule.is_met(noisy, 1.0)
    assert rule.is_met([*noisy, 0.5], 1.0)


def test_significance_never_stops_a_run() -> None:
    clearly_faster_but_wide = [1.0 + 0.2 * block for block in range(12)]
    assert not StopRule().is_met(clearly_faster_but_wide, 1.0)


@pytest.mark.parametrize(
    ("interval", "noise", "verdict"),
    [
        (Interval(1.05, 1.011, 1.1), 0.0, SpeedVerdict.FASTER),
        (Interval(1.05, 1.009, 1.1), 0.0, SpeedVerdict.UNDECIDED),
        (Interval(1.05, 1.03, 1.1), 0.04, SpeedVerdict.UNDECIDED),
        (Interval(0.95, 0.9, 0.989), 0.0, SpeedVerdict.SLOWER),
        (Interval(0.95, 0.9, 0.989), 0.05, SpeedVerdict.UNDECIDED),
        (Interval(1.0, 0.985, 1.015), 0.0, SpeedVerdict.SAME),
        (Interval(1.0, 0.97, 1.015), 0.0, SpeedVerdict.UNDECIDED),
        (Interval(1.0, 0.0, math.inf), 0.0, SpeedVerdict.UNDECIDED),
    ],
)
def test_the_verdict_is_by_the_whole_interval(interval: Interval, noise: float, verdict: SpeedVerdict) -> None:
    assert decide(interval, noise) is verdict


def test_too_few_blocks_are_undecided_however_clear() -> None:
    reading = Reading((0.01,) * 40, 0.1, 0.2, True, 100)
    found = conclude([(2.0,) * 9], [(reading, reading)], StopRule(), 0.0)
    assert found.verdict is SpeedVerdict.UNDECIDED
    assert "only 9 blocks; a claim takes 10" in found.note


def test_a_p99_takes_473_calls() -> None:
    few, enough = (Reading((0.01,) * calls, 0.1, 0.2, True, 100) for calls in (472, 473))
    found = conclude([(1.0,) * 10], [(few, enough)], StopRule(), 0.0)
    assert found.baseline.p99_seconds is None
    assert found.candidate.p99_seconds == 0.01


def test_an_arm_that_never_settled_is_named() -> None:
    reading = Reading((0.01,) * 40, 0.1, 0.2, False, 100)
    assert "candidate is UNSTEADY" in conclude([(1.0,) * 10], [(reading, reading)], StopRule(), 0.0).note


def test_where_threads_waited_for_cores_the_interval_holds_the_ratio_of_means_and_claims_the_less() -> None:
    quiet = Reading((0.01,) * 40, 0.1, 0.2, True, 100)
    crowded = dataclasses.replace(quiet, waited_share=0.6)
    ratios, means = [(18.0, 17.0) * 6], [(1.8, 1.7) * 6]

    alone = conclude(ratios, [(quiet, quiet)], StopRule(), 0.0, (), means)
    found = conclude(ratios, [(crowded, quiet)], StopRule(), 0.0, (), means)

    assert alone.speedup.low == pytest.approx(17.0) and alone.note == ""
    assert (found.speedup.low, found.speedup.high) == (pytest.approx(1.7), pytest.approx(18.0))
    assert found.speedup.value == pytest.approx(1.75, abs=0.06)
    assert "waited 60% of their time for a core" in found.note


def test_a_block_gives_the_ratio_of_means_beside_that_of_medians() -> None:
    pair, _ = fake_pair()
    pair.blocks(3)

    assert pair.mean_ratios == pytest.approx(pair.ratios)
    assert pair.mean_ratios == pytest.approx((2.0, 2.0, 2.0))


CROWD = """
import os, subprocess, sys, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
from vivace.measure.environment import core_seconds
time.sleep(1)
before, until = core_seconds(), time.monotonic() + 1
while time.monotonic() < until:
    pass
after = core_seconds()
for other in others:
    other.kill()
ran, waited = after[0] - before[0], after[1] - before[1]
print(waited / (ran + waited))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the kernel pins no process")
def test_threads_that_share_a_core_are_seen_to_wait_for_it() -> None:
    told = subprocess.run([sys.executable, "-c", CROWD], capture_output=True, text=True, timeout=60, check=True)

    assert float(told.stdout) > 0.3  # two thirds, if the scheduler is fair


def test_the_noise_floor_is_the_farther_end_of_the_interval() -> None:
    reading = Reading((0.01,) * 40, 0.1, 0.2, True, 100)
    same = conclude([(1.0, 1.02) * 10], [(reading, reading)], StopRule(), 0.0)
    assert noise_floor_of(same.speedup) == pytest.approx(0.02)


class MixedArm(FakeArm):
    """An arm whose calls take as long as their shape says; a walk is twelve inputs."""

    def __init__(self, by_shape: tuple[float, float], log: list[tuple[str, int, int]], name: str) -> None:
        super().__init__(by_shape[0], log, name)
        self.distinct_inputs = 12
        self.mix: Mix | None = Mix((0, 1, 0) * 4, (0.6, 0.4))
        self._by_shape = by_shape

    def time(self, start: int, calls: int) -> list[float]:
        self._log.append((self._name, start, calls))
        assert self.mix is not None
        found = [self._by_shape[shape] for shape in self.mix.walk(start, calls).shapes]
        self.seconds += found
        return found


def mixed_pair(baseline: tuple[float, float], candidate: tuple[float, float]) -> tuple[Pair, list[Any]]:
    log: list[Any] = []
    arms: Any = MixedArm(baseline, log, "A"), MixedArm(candidate, log, "B")
    return Pair(arms[0], arms[1], 0.02, random.Random(0)), log


def test_a_block_of_a_mix_weighs_each_shape_by_its_share_of_all_calls() -> None:
    pair, _ = mixed_pair((0.001, 0.010), (0.0012, 0.004))
    pair.blocks(5)
    assert pair.log_ratios == pytest.approx([math.log((0.6 * 1 + 0.4 * 10) / (0.6 * 1.2 + 0.4 * 4))] * 5)


@pytest.mark.parametrize("seconds", [1e-5, 1e-3, 3.0])
def test_every_block_of_a_mix_walks_every_input_equally_often(seconds: float) -> None:
    pair, log = mixed_pair((seconds, 10 * seconds), (seconds / 7, seconds))
    pair.blocks(3)
    calls = [(name, start, count) for name, start, count in log if name == "A"]
    assert [2 * count % 12 for _, _, count in log] == [0] * 12
    assert all(start % 12 == 0 for _, start, _ in calls[::2])


def test_times_of_a_mix_are_told_by_shape_and_as_their_mean_by_the_weights() -> None:
    mix = Mix((0, 0, 1, 0), (0.9, 0.1))
    readings = [Reading((1.0, 1.2, 10.0, 1.1), 0.1, 0.2, True, 100, mix)] * 2
    found = summary(readings)
    assert found.shape_seconds == (1.1, 10.0)
    assert found.median_seconds == pytest.approx(0.9 * 1.1 + 0.1 * 10.0)
    assert summary([Reading((1.0, 1.2, 10.0), 0.1, 0.2, True, 100)]).shape_seconds == ()


def test_real_workers_time_a_mix_by_its_shapes(tmp_path: Path) -> None:
    order = (0, 1) * 8
    inputs = [[torch.full((2, 64) if shape else (1, 64), float(i))] for i, shape in enumerate(order)]
    _, call = flatten({"x": inputs[0][0]}, torch.is_tensor)
    calls = samples.write(tmp_path / "calls", inputs, call, 1, Mix(order, (0.75, 0.25)))
    slow, fast = (ArmSpec("programs:spin_by_rows", {"seconds": seconds}) for seconds in (0.002, 0.001))
    found = compare(slow, fast, calls, tmp_path, rule=QUICK, seed=1)
    assert found.verdict is SpeedVerdict.FASTER
    one_row, two_rows = found.candidate.shape_seconds
    assert 0.001 <= one_row < two_rows
    assert found.candidate.median_seconds == pytest.approx(0.75 * one_row + 0.25 * two_rows)


def test_a_planted_difference_is_measured_between_real_workers(calls: Path, tmp_path: Path) -> None:
    slow, fast = (ArmSpec("programs:spin", {"seconds": seconds}) for seconds in (0.002, 0.001))
    found = compare(slow, fast, calls, tmp_path, rule=QUICK, seed=1)
    assert found.verdict is SpeedVerdict.FASTER
    assert found.baseline.median_seconds >= 0.002
    assert found.candidate.peak_memory_bytes > 50_000_000


def test_programs_open_one_by_one_in_the_first_pair_which_tells_how_long_and_together_in_the_others(
    calls: Path, tmp_path: Path
) -> None:
    one, other = (str(tmp_path / name) for name in ("one", "other"))
    meet, again = (
        ArmSpec("programs:meets", {"mine": mine, "other": its}) for mine, its in ((one, other), (other, one))
    )

    found = compare(meet, again, calls, tmp_path, rule=QUICK, restarts=2, later_variables={"MEET": "1"})

    assert found.restarts == 2
    assert min(found.baseline.load_seconds, found.candidate.load_seconds) >= 0.2


def test_a_candidate_that_remembers_is_a_wrong_output(calls: Path, tmp_path: Path) -> None:
    honest, cheat = ArmSpec("programs:spin", {"seconds": 0.002}), ArmSpec("programs:remembers")
    with pytest.raises(WorkerFailure, match="answers from memory") as caught:
        compare(honest, cheat, calls, tmp_path, rule=QUICK)
    assert caught.value.outcome is Outcome.WRONG_OUTPUT


def test_new_inputs_that_were_slow_in_the_first_pair_only_are_no_cache(calls: Path, tmp_path: Path) -> None:
    honest = ArmSpec("programs:spin", {"seconds": 0.002})
    slowed = ArmSpec("programs:remembers_once", {"marker": str(tmp_path / "marker")})
    assert compare(honest, slowed, calls, tmp_path, rule=QUICK, restarts=2).restarts == 2


def test_a_candidate_that_remembers_in_every_pair_is_refused_in_the_second(calls: Path, tmp_path: Path) -> None:
    honest, cheat = ArmSpec("programs:spin", {"seconds": 0.002}), ArmSpec("programs:remembers")
    told: list[str] = []
    with pytest.raises(WorkerFailure, match="answers from memory"):
        compare(honest, cheat, calls, tmp_path, rule=QUICK, restarts=3, progress=told.append)
    assert len(told) == 1


class TimedArm:
    """An arm whose new and repeated inputs were timed."""

    def __init__(self, new: list[float], repeated: list[float]) -> None:
        ratio = min(one / other for one, other in zip(new, repeated, strict=True))
        self._found = {
            "cached": ratio > 3, "new_over_repeated": ratio, "new_seconds": new, "repeated_seconds": repeated
        }  # fmt: skip

    def caching(self) -> dict[str, Any]:
        return self._found


@pytest.mark.parametrize(
    ("new", "repeated", "is_told"),
    [
        ([2.0] * 4, [1.0] * 4, True),  # what is gained is gained on repeated inputs alone
        ([1.0, 9.0, 9.0, 9.0], [1.0] * 4, False),  # a busy machine
        ([1.5] * 4, [1.0] * 4, True),  # a third of the gain is left
        ([1.4] * 4, [0.5] * 4, True),
        ([0.7] * 4, [0.5] * 4, False),  # the way of a new input into the processor's cache
    ],
)
def test_what_is_gained_on_repeated_inputs_has_to_be_there_on_new_ones(
    new: list[float], repeated: list[float], is_told: bool
) -> None:
    arms: Any = TimedArm([2.0] * 4, [2.0] * 4), TimedArm(new, repeated)

    assert bool(why_partly_cached(*arms)) is is_told


def test_a_candidate_that_remembers_a_part_of_its_answers_is_refused(calls: Path, tmp_path: Path) -> None:
    honest, cheat = ArmSpec("programs:spin", {"seconds": 0.04}), ArmSpec("programs:remembers_half")
    with pytest.raises(WorkerFailure, match="a part of its answers comes from memory") as caught:
        compare(honest, cheat, calls, tmp_path, rule=QUICK, restarts=2)
    assert caught.value.outcome is Outcome.WRONG_OUTPUT


def test_a_candidate_that_is_twice_as_fast_on_new_inputs_too_remembers_nothing(calls: Path, tmp_path: Path) -> None:
    honest, faster = (ArmSpec("programs:spin", {"seconds": seconds}) for seconds in (0.004, 0.002))
    assert compare(honest, faster, calls, tmp_path, rule=QUICK, restarts=2).speedup.value > 1.5


def test_a_baseline_that_remembers_is_told_not_measured(calls: Path, tmp_path: Path) -> None:
    cheat, honest = ArmSpec("programs:remembers"), ArmSpec("programs:spin", {"seconds": 0.002})
    with pytest.raises(UsageError, match="the original answers repeated inputs from memory: new inputs take"):
        compare(cheat, honest, calls, tmp_path, rule=QUICK, restarts=2)


def test_a_failing_candidate_is_blamed_and_a_failing_baseline_is_not(calls: Path, tmp_path: Path) -> None:
    good, bad = ArmSpec("programs:multiply"), ArmSpec("programs:fails_at", {"call": 50})
    with pytest.raises(WorkerFailure) as candidate:
        compare(good, bad, calls, tmp_path / "1", rule=QUICK)
    with pytest.raises(WorkerFailure) as baseline:
        compare(bad, good, calls, tmp_path / "2", rule=QUICK)
    assert (candidate.value.outcome, baseline.value.outcome) == (Outcome.CRASHED, Outcome.INFRA_ERROR)
    assert "ValueError: planted" in baseline.value.reason


@pytest.mark.slow
def test_an_arm_against_itself_is_never_called_different_by_more_than_its_noise(calls: Path, tmp_path: Path) -> None:
    spec = ArmSpec("programs:multiply", {"repeats": 200})
    rule = StopRule(max_seconds=9.0, warm_seconds=1.0)
    noise = measure_noise(spec, calls, tmp_path / "noise", rule=rule, restarts=3, seed=3)
    found = compare(spec, spec, calls, tmp_path, rule=rule, restarts=3, noise_floor=noise.noise_floor, seed=4)
    assert found.verdict in (SpeedVerdict.SAME, SpeedVerdict.UNDECIDED)


@pytest.mark.slow
def test_a_planted_five_percent_is_found_between_real_workers(calls: Path, tmp_path: Path) -> None:
    slow, fast = (ArmSpec("programs:spin", {"seconds": seconds}) for seconds in (0.00210, 0.00200))
    found = compare(fast, slow, calls, tmp_path, rule=StopRule(max_seconds=30.0), restarts=3, seed=5)
    if "for a core" in found.note:
        pytest.skip(found.note)
    assert found.speedup.high < 1.0
    assert found.verdict in (SpeedVerdict.SLOWER, SpeedVerdict.UNDECIDED)
