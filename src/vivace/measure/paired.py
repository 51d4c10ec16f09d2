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
from vivace.core.measurement import ArmTimes, Comparison, Interval, Outcome, SpeedVerdict
from vivace.core.workload import Mix
from vivace.measure import environment, stats
from vivace.measure.clock import Clock, SystemClock
from vivace.measure.live import ArmSpec as ArmSpec
from vivace.measure.live import LiveArm, Reading
from vivace.measure.process import STANDARD, Limits

Progress = Callable[[str], None]

SMALLEST_CLAIM = 0.01
QUANTILES = (0.5, 0.9, 0.99)
SAME_WITHIN = 0.02
MOST_CALLS = 10_000
MOST_RESTARTS = 8


@dataclasses.dataclass(frozen=True)
class StopRule:
    """When to stop adding blocks: on the interval's width or on the budget, never on significance.

    `half_width` is of the 95% interval of the ratio, as a share. `min_blocks` (over all restarts) are needed for a
    claim. `max_blocks` are per restart. `max_seconds` bounds the blocks of all restarts together; a block that runs is
    finished, and the fewest blocks that make an interval are timed even of a model that takes seconds. `block_seconds`
    is the least length of a sub-block. `warm_seconds` caps the warm-up of one arm.
    """

    half_width: float = 0.01
    min_blocks: int = 10
    max_blocks: int = 60
    max_seconds: float = 20.0
    block_seconds: float = 0.02
    warm_seconds: float = 5.0

    def share(self, restarts: int) -> StopRule:
        """The rule of one restart among several: pooling narrows by the square root of their number."""
        return dataclasses.replace(
            self,
            half_width=self.half_width * math.sqrt(restarts),
            min_blocks=max(stats.FEWEST_FOR_INTERVAL, math.ceil(self.min_blocks / restarts)),
            max_seconds=self.max_seconds / restarts,
        )

    def is_met(self, log_ratios: Sequence[float], seconds: float) -> bool:
        """Whether to stop after these blocks and this time."""
        if not log_ratios:
            return False
        if len(log_ratios) >= self.max_blocks:
            return True
        if seconds >= self.max_seconds:
            return len(log_ratios) >= stats.FEWEST_FOR_INTERVAL
        if len(log_ratios) < self.min_blocks:
            return False
        found = stats.hodges_lehmann(log_ratios)
        return (found.high - found.low) / 2 <= self.half_width


ONE_PERCENT = StopRule()


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
        difference = math.log(_call_seconds(outer, outer_seconds) / _call_seconds(inner, inner_seconds))
        self.log_ratios.append(difference if outer is self.baseline else -difference)


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
    the few new inputs of one pair slow.
    """
    chance = random.Random(seed)
    before = environment.counters()
    ratios: list[tuple[float, ...]] = []
    readings: list[tuple[Reading, Reading]] = []
    share = rule.share(restarts)
    notes: list[str] = []
    cached = ""
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
            if is_first or cached:
                cached = why_cached(*both)
            if cached and restart >= min(2, restarts):
                raise WorkerFailure(Outcome.WRONG_OUTPUT, cached)
            for arm in both:
                arm.read_memory()
                notes.append(arm.read_clock())
            ratios.append(pair.ratios)
            readings.append(pair.readings())
        if progress:
            progress(f"pair {restart} of {restarts}: {pair.speedup()}")
    notes.append(environment.disturbance(before, environment.counters()))
    return conclude(ratios, readings, rule, noise_floor, list(dict.fromkeys(notes)))


def _is_wide(ratios: Sequence[Sequence[float]], rule: StopRule) -> bool:
    """Whether the interval over these restarts is wider than the rule asks."""
    found = stats.combine([[math.log(ratio) for ratio in restart] for restart in ratios]).interval
    return (found.high - found.low) / 2 > rule.half_width


def refuse_cached(baseline: LiveArm, candidate: LiveArm) -> None:
    """Raise WorkerFailure (WRONG_OUTPUT) when only the candidate answers repeated inputs from memory."""
    reason = why_cached(baseline, candidate)
    if reason:
        raise WorkerFailure(Outcome.WRONG_OUTPUT, reason)


def why_cached(baseline: LiveArm, candidate: LiveArm) -> str:
    """How it shows that only the candidate answers repeated inputs from memory; empty where it does not."""
    found = candidate.caching()
    if not found["cached"] or baseline.caching()["cached"]:
        return ""
    return (
        f"new inputs take {found['new_over_repeated']:.1f} times as long as repeated ones, so it answers from memory "
        "and its timing on repeated inputs says nothing"
    )


def conclude(
    ratios: Sequence[tuple[float, ...]],
    readings: Sequence[tuple[Reading, Reading]],
    rule: StopRule,
    noise_floor: float,
    notes: Sequence[str] = (),
) -> Comparison:
    """The comparison that these blocks amount to: a tuple of ratios and the readings of both arms for each restart."""
    combined = stats.combine([[math.log(ratio) for ratio in restart] for restart in ratios])
    speedup = exponential(combined.interval)
    blocks = sum(map(len, ratios))
    enough = blocks >= rule.min_blocks
    baseline = summary([first for first, _ in readings])
    candidate = summary([second for _, second in readings])
    found = [
        *notes,
        "the interval is over restarts, which differ by more than blocks explain" if combined.over_restarts else "",
        "" if enough else f"only {blocks} blocks; a claim takes {rule.min_blocks}",
        "" if baseline.steady else "the baseline is UNSTEADY",
        "" if candidate.steady else "the candidate is UNSTEADY",
    ]
    return Comparison(
        speedup=speedup,
        verdict=decide(speedup, noise_floor) if enough else SpeedVerdict.UNDECIDED,
        baseline=baseline,
        candidate=candidate,
        blocks=blocks,
        restarts=len(ratios),
        noise_floor=noise_floor,
        ratios=tuple(ratios),
        note="; ".join(note for note in found if note),
    )


def decide(speedup: Interval, noise_floor: float = 0.0) -> SpeedVerdict:
    """The verdict on a speed-up's interval (README, "How a number is earned").

    FASTER or SLOWER when the whole interval is beyond 1 by more than 1% and more than the noise floor; otherwise SAME
    when the whole interval is within 2% of 1; otherwise UNDECIDED.

    >>> decide(Interval(1.05, 1.03, 1.07), noise_floor=0.02).value
    'FASTER'
    >>> decide(Interval(1.05, 1.03, 1.07), noise_floor=0.04).value
    'UNDECIDED'
    """
    least = 1 + max(SMALLEST_CLAIM, noise_floor)
    if speedup.low > least:
        return SpeedVerdict.FASTER
    if speedup.high < 1 / least:
        return SpeedVerdict.SLOWER
    if speedup.low >= 1 - SAME_WITHIN and speedup.high <= 1 + SAME_WITHIN:
        return SpeedVerdict.SAME
    return SpeedVerdict.UNDECIDED


def noise_floor_of(same: Interval) -> float:
    """The smallest effect that may be claimed, from the speed-up of the baseline over itself.

    It is the farther end of the A/A interval from 1, as a share. Infinite when there were too few blocks.
    """
    farther = max(abs(math.log(same.low)) if same.low > 0 else math.inf, abs(math.log(same.high)))
    return math.expm1(farther)


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


def _call_seconds(arm: LiveArm, seconds: Sequence[float]) -> float:
    """The figure of one arm in one block, which begins with the first input where they have several shapes."""
    return stats.call_seconds(seconds, arm.mix and arm.mix.walk(0, len(seconds)))


def exponential(logs: Interval) -> Interval:
    """An interval of logs as one of ratios."""
    return Interval(math.exp(logs.value), math.exp(logs.low), math.exp(logs.high))


def summary(readings: Sequence[Reading]) -> ArmTimes:
    """Median and tail bounds of an arm's calls over its restarts, and the median of their first calls; the seconds of
    loading are of the first restart, in which programs open one by one."""
    seconds = [second for reading in readings for second in reading.seconds]
    mixes = [reading.mix for reading in readings if reading.mix is not None]
    mix = Mix(tuple(shape for one in mixes for shape in one.shapes), mixes[0].weights) if mixes else None
    return ArmTimes(
        median_seconds=stats.call_seconds(seconds, mix),
        p90_seconds=stats.tail_bound(seconds, 0.90),
        p99_seconds=stats.tail_bound(seconds, 0.99),
        calls=len(seconds),
        load_seconds=readings[0].load_seconds,
        first_call_seconds=statistics.median(reading.first_call_seconds for reading in readings),
        steady=all(reading.steady for reading in readings),
        peak_memory_bytes=max(reading.peak_bytes for reading in readings),
        shape_seconds=tuple(stats.shape_medians(seconds, mix).values()) if mix else (),
        quantiles=tuple(stats.quantile(seconds, share) for share in QUANTILES),
        spread_seconds=stats.spread(seconds),
    )


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
