"""The paired comparison: two arms in processes of their own, interleaved blocks, the verdict on their ratio."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from vivace.core.errors import WorkerFailure
from vivace.core.measurement import Comparison, Interval, Outcome
from vivace.measure import environment, stats
from vivace.measure.claims.caches import refuse_cached_original, why_cached, why_partly_cached
from vivace.measure.claims.conclude import conclude, exponential, noise_floor_of
from vivace.measure.claims.rules import ONE_PERCENT as ONE_PERCENT
from vivace.measure.claims.rules import StopRule as StopRule
from vivace.measure.clock import Clock, SystemClock
from vivace.measure.live import ArmSpec as ArmSpec
from vivace.measure.live import LiveArm, Reading
from vivace.measure.process import STANDARD, Limits

Progress = Callable[[str], None]

MOST_CALLS = 10_000
MOST_RESTARTS = 8


class Pair:
    """A baseline and a candidate, both started. Blocks of ABBA are added one by one; the first letter is random.

    A block times k calls of one arm, twice k of the other, and k of the first again; both walk the same inputs in the
    same order, from the same one on. k is such that the faster arm's sub-block lasts `block_seconds`; an arm that is
    much slower makes fewer calls, but walks every input at least once. Its figure is
    d = ln(median baseline seconds / median candidate seconds), over the block's calls of each arm. Where calls come in
    several shapes a block walks all inputs equally often, and the place of the medians is taken by the means of the
    shapes' medians by their weights (`stats.call_seconds`).
    """

    def __init__(
        self, baseline: LiveArm, candidate: LiveArm, block_seconds: float = 0.02, chance: random.Random | None = None
    ) -> None:
        self.baseline = baseline
        self.candidate = candidate
        self.log_ratios: list[float] = []
        self.means: list[float] = []
        most = calls_per_block(block_seconds, baseline.seconds_per_call, candidate.seconds_per_call)
        self.calls = {arm: _own_calls(arm, block_seconds, most) for arm in (baseline, candidate)}
        self._chance = chance or random.Random()
        self._next = 0
        self._already = (len(baseline.seconds), len(candidate.seconds))

    def blocks(self, count: int = 1) -> None:
        """Add blocks."""
        for _ in range(count):
            self._block()

    def run(
        self, rule: StopRule, clock: Clock | None = None, hopeless: Callable[[Interval], bool] | None = None
    ) -> None:
        """Add blocks until the rule is met, or the speed-up's interval is hopeless."""
        clock = clock or SystemClock()
        started = clock.now()
        while not rule.is_met(self.log_ratios, clock.now() - started):
            self._block()
            if hopeless and len(self.log_ratios) >= stats.FEWEST_FOR_INTERVAL and hopeless(self.speedup()):
                return

    def speedup(self) -> Interval:
        """Baseline seconds over candidate seconds, with the 95% interval of these two processes."""
        return exponential(stats.hodges_lehmann(self.log_ratios))

    @property
    def mean_ratios(self) -> tuple[float, ...]:
        """Baseline's mean seconds over the candidate's, block by block."""
        return tuple(math.exp(value) for value in self.means)

    @property
    def ratios(self) -> tuple[float, ...]:
        """Baseline over candidate, block by block."""
        return tuple(math.exp(value) for value in self.log_ratios)

    def readings(self) -> tuple[Reading, Reading]:
        """What was read from the baseline and from the candidate in this pair's blocks."""
        return self.baseline.reading(self._already[0]), self.candidate.reading(self._already[1])

    def _block(self) -> None:
        """One ABBA block."""
        outer, inner = (
            (self.baseline, self.candidate) if self._chance.random() < 0.5 else (self.candidate, self.baseline)
        )
        start, k = self._next, self.calls
        outer_seconds = outer.time(start, k[outer])
        inner_seconds = inner.time(start, k[inner]) + inner.time(start + k[inner], k[inner])
        outer_seconds += outer.time(start + k[outer], k[outer])
        self._next += 2 * max(k.values())
        sign = 1 if outer is self.baseline else -1
        for kept, average in ((self.log_ratios, statistics.median), (self.means, statistics.fmean)):
            ratio = _call_seconds(outer, outer_seconds, average) / _call_seconds(inner, inner_seconds, average)
            kept.append(sign * math.log(ratio))


def compare(
    baseline: ArmSpec,
    candidate: ArmSpec,
    calls: Path,
    folder: Path,
    *,
    rule: StopRule = ONE_PERCENT,
    restarts: int = 1,
    seconds_for_more: float = 0.0,
    noise_floor: float = 0.0,
    limits: Limits = STANDARD,
    environment_variables: Mapping[str, str] | None = None,
    later_variables: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    seed: int | None = None,
    fresh: bool = True,
) -> Comparison:
    """Compare two arms from scratch, in `restarts` fresh pairs of processes; not `fresh` are those of a race, which
    ranks and makes no claim.

    `calls` is a folder of stored calls; `folder` receives the workers' logs. `later_variables` are the environment of
    all pairs but the first, if they differ: the first tells how long loading takes, and in the others, where both
    programs load at once, compilers may find what they made before. At least 3 restarts are needed for a
    number that leaves the tool. Where restarts disagree so much that the interval is wider than the rule asks, more are
    added (up to MOST_RESTARTS), as long as another one is likely to end within `seconds_for_more` of the beginning.

    Raises WorkerFailure when an arm fails, and with WRONG_OUTPUT when the candidate answers repeated inputs from memory
    while the baseline does not: in the first pair and, where there is one, in the second, since a busy machine can make
    the few new inputs of one pair slow. So with a candidate that gains much more on repeated inputs than on new ones.
    Raises UsageError where the baseline answers from memory, in as many pairs.
    """
    chance = random.Random(seed)
    before = environment.counters()
    ratios: list[tuple[float, ...]] = []
    means: list[tuple[float, ...]] = []
    readings: list[tuple[Reading, Reading]] = []
    share = rule.share(restarts)
    notes: list[str] = []
    cached, is_doubtful = "", restarts == 1
    clock = SystemClock()
    began = clock.now()
    for restart in range(1, max(restarts, MOST_RESTARTS) + 1):
        spent = clock.now() - began
        is_late = spent * restart / max(1, restart - 1) > seconds_for_more  # another one takes as long as those so far
        if restart > restarts and (is_late or not _is_wide(ratios, rule)):
            break
        is_first = restart == 1
        variables = environment_variables if is_first or later_variables is None else later_variables
        with _two_arms(baseline, candidate, calls, folder / f"pair-{restart}", share, limits,
                       variables, chance, fresh, one_by_one=is_first) as both:  # fmt: skip
            pair = Pair(*both, share.block_seconds, chance)
            pair.run(share)
            is_sure = restart >= min(2, restarts)
            if is_sure and is_doubtful:
                refuse_cached_original(both[0])
            is_doubtful = is_first and bool(both[0].caching()["cached"])
            if is_first or cached:
                cached = why_cached(*both) or why_partly_cached(*both)
            if cached and is_sure:
                raise WorkerFailure(Outcome.WRONG_OUTPUT, cached)
            for arm in both:
                arm.read_memory()
                arm.read_waiting()
                notes.append(arm.read_clock())
            ratios.append(pair.ratios)
            means.append(pair.mean_ratios)
            readings.append(pair.readings())
        if progress:
            progress(f"pair {restart} of {restarts}: {pair.speedup()}")
    notes.append(environment.disturbance(before, environment.counters()))
    return conclude(ratios, readings, rule, noise_floor, list(dict.fromkeys(notes)), means)


def _is_wide(ratios: Sequence[Sequence[float]], rule: StopRule) -> bool:
    """Whether the interval over these restarts is wider than the rule asks."""
    found = stats.combine([[math.log(ratio) for ratio in restart] for restart in ratios]).interval
    return (found.high - found.low) / 2 > rule.half_width


def measure_noise(
    baseline: ArmSpec,
    calls: Path,
    folder: Path,
    *,
    rule: StopRule = ONE_PERCENT,
    restarts: int = 1,
    limits: Limits = STANDARD,
    environment_variables: Mapping[str, str] | None = None,
    seed: int | None = None,
) -> Comparison:
    """The session's A/A pair: the baseline against itself in another process. `noise_floor` is filled in."""
    same = compare(baseline, baseline, calls, folder, rule=rule, restarts=restarts, limits=limits,
                   environment_variables=environment_variables, seed=seed)  # fmt: skip
    return dataclasses.replace(same, noise_floor=noise_floor_of(same.speedup))


def calls_per_block(block_seconds: float, *seconds_per_call: float) -> int:
    """How many calls make a sub-block of the fastest arm last this long; the same for all arms.

    >>> calls_per_block(0.02, 0.004, 0.001)
    20
    """
    return min(MOST_CALLS, max(1, math.ceil(block_seconds / max(min(seconds_per_call), 1e-9))))


def _own_calls(arm: LiveArm, block_seconds: float, most: int) -> int:
    """What one arm makes of the calls that the faster one needs: as many as fill its block, or as there are inputs.

    With inputs of several shapes the two sub-blocks of an arm are whole walks together.
    """
    calls = min(most, max(calls_per_block(block_seconds, arm.seconds_per_call), arm.distinct_inputs))
    if arm.mix is None:
        return calls
    step = arm.distinct_inputs if arm.distinct_inputs % 2 else arm.distinct_inputs // 2
    return math.ceil(calls / step) * step


def _call_seconds(arm: LiveArm, seconds: Sequence[float], average: Callable[[Sequence[float]], float]) -> float:
    """The figure of one arm in one block, which begins with the first input where they have several shapes."""
    return stats.call_seconds(seconds, arm.mix and arm.mix.walk(0, len(seconds)), average)


@contextlib.contextmanager
def _two_arms(
    baseline: ArmSpec,
    candidate: ArmSpec,
    calls: Path,
    folder: Path,
    rule: StopRule,
    limits: Limits,
    variables: Mapping[str, str] | None,
    chance: random.Random,
    fresh: bool,
    one_by_one: bool,
) -> Iterator[tuple[LiveArm, LiveArm]]:
    """Both arms, ended together, in random order. Their interpreters start side by side; so do programs open, unless
    `one_by_one`, as it takes to tell how long each takes. First calls and warm-ups are made one by one always."""
    specs = {"baseline": baseline, "candidate": candidate}
    order = ["baseline", "candidate"] if chance.random() < 0.5 else ["candidate", "baseline"]
    arms: dict[str, LiveArm] = {}
    with contextlib.ExitStack() as stack:
        for name in order:
            arm = LiveArm(specs[name], calls, folder / name, limits, variables, name == "baseline", fresh)
            arms[name] = stack.enter_context(arm)
        if one_by_one:
            for arm in arms.values():
                arm.ready()
            for name in order:
                arms[name].start(rule.warm_seconds)
        else:
            for name in sorted(order, key=lambda name: specs[name].payload is not None):  # which has to be read first
                arms[name].post()
            for name in order:
                arms[name].open()
            for name in order:
                arms[name].settle(rule.warm_seconds)
        yield arms["baseline"], arms["candidate"]
