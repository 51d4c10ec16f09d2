"""What bounds a step, and the evidence: each operator on the roofline, beside waiting, launching and exchanging."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from vivace.core.training.bound import Bandwidth, OperatorWork, StepBound, StepRoofline, Work, joined
from vivace.measure.stats import quantile

REACHED = 0.05
"""The share of a ceiling that an operator must reach for that to bound it: less says that it is something else."""
FAR = 0.25
"""Operators that together reach less of their ceiling are said to be far from it."""
NEAR_CEILING = 0.3
"""The same of a step as a whole, where its operators were not watched."""
LAUNCHES = 10.0
"""An operator that takes no longer than so many empty ones, and reaches no ceiling, is little more than its launch; so
is one whose whole work takes no longer than an empty one."""
TOO_FAST = 2.0
"""Operators that are faster than their ceiling by this factor were not counted or not measured rightly."""


@dataclasses.dataclass(frozen=True)
class Noise:
    """The 95% intervals of the medians of waiting and of computing over the steps, in seconds; and the least of a step
    in which no operator ran: what is left of computing beside the operators' time under the profiler, which has its own
    cost in it."""

    waiting: tuple[float, float]
    computing: tuple[float, float]
    least_idle: float


def noise_of(rows: Sequence[Sequence[float]], operating: float) -> Noise:
    """What steps show, each the seconds of waiting and then of the phases of computing; operators took `operating`
    seconds of a step under the profiler.

    >>> noise_of([(2.0, 1.0, 2.0)] * 9, operating=2.5)
    Noise(waiting=(2.0, 2.0), computing=(3.0, 3.0), least_idle=0.5)
    """
    waiting, computing = [row[0] for row in rows], [sum(row[1:]) for row in rows]
    return Noise(_of_median(waiting), _of_median(computing), max(0.0, statistics.median(computing) - operating))


def _of_median(seconds: Sequence[float]) -> tuple[float, float]:
    found = quantile(seconds, 0.5)
    low, high = found.low_seconds, found.high_seconds
    return (min(seconds) if low is None else low, max(seconds) if high is None else high)


@dataclasses.dataclass(frozen=True)
class Split:
    """Seconds of a step: all, waiting for its batch, without an operator, and exchanging between processes; and the
    least that its products and what it holds take at the ceilings, None where these were not measured."""

    step: float
    waiting: float
    idle: float
    exchanging: float
    arithmetic: float | None = None
    memory: float | None = None
    noise: Noise | None = None

    @property
    def operating(self) -> float:
        """In which operators ran."""
        return max(0.0, self.step - self.waiting - self.idle)


def roofline_of(read: Mapping[str, Any], ceiling_gflops: float | None, split: Split) -> StepRoofline | None:
    """What was watched of the operators, with what bounds each; None without that, or without a known ceiling."""
    if not read or not read["calls"] or ceiling_gflops is None:
        return None
    found: dict[tuple[str, str, StepBound], list[Work]] = {}
    for phase, operator, *numbers in read["calls"]:
        work = _work(numbers, ceiling_gflops)
        found.setdefault((phase, operator, bound_of(work, read["launch_seconds"])), []).append(work)
    operators = [OperatorWork(*key, joined(parts)) for key, parts in found.items()]
    whole = sum(one.work.seconds for one in operators)
    spent = dict.fromkeys(StepBound, 0.0)
    spent[StepBound.INPUT], spent[StepBound.OVERHEAD] = split.waiting, split.idle
    for one in operators:
        spent[one.bound] += split.operating * one.work.seconds / whole if whole else 0.0
    return StepRoofline(
        tuple(sorted(operators, key=lambda one: -one.work.seconds)),
        tuple(Bandwidth(*numbers) for numbers in read["bandwidths"]),
        read["launch_seconds"],
        {bound.value: seconds for bound, seconds in spent.items()},
    )


def bound_of(work: Work, launch_seconds: float) -> StepBound:
    """What bounds calls of an operator: the ceiling that allows it the longer time, if it reaches enough of that.

    >>> [bound_of(one, 2e-6).value for one in (Work(1, 1e-3, 0.0, 8e6, 0.0, 8e-4), Work(1, 9e-6, 0.0, 8.0, 0.0, 1e-9))]
    ['memory', 'overhead']
    """
    if max(work.share_of_arithmetic, work.share_of_memory) >= REACHED:
        return StepBound.COMPUTE if work.arithmetic_seconds > work.memory_seconds else StepBound.MEMORY
    launches = launch_seconds * work.calls
    has_no_work = max(work.arithmetic_seconds, work.memory_seconds) <= launches  # it waits, such as for other threads
    return StepBound.OVERHEAD if has_no_work or work.seconds <= LAUNCHES * launches else StepBound.KERNELS


@dataclasses.dataclass(frozen=True)
class Bound:
    """What explains the most of a step, how that shows, and what may explain as much by the noise of its steps."""

    bound: StepBound
    evidence: str
    rival: StepBound | None = None


def bound_with_evidence(split: Split, roofline: StepRoofline | None) -> Bound:
    """What explains the most of a step; where another bound's interval reaches into its own, that too."""
    if roofline is None:
        return Bound(*_of_the_whole(split))
    spent = {bound: roofline.seconds_by_bound[bound.value] for bound in StepBound}
    spent[StepBound.COMMUNICATION] = split.exchanging
    bound = max(spent, key=lambda one: spent[one])
    second = max(set(spent) - {bound}, key=lambda one: (_range(split, one, spent[one])[1], one.value))
    told = _evidence(split, roofline, bound, spent[bound])
    ranges = [_range(split, one, spent[one]) for one in (bound, second)]
    if ranges[1][1] <= ranges[0][0]:
        return Bound(bound, told)
    own, others = (f"{low * 1e3:.3g} to {high * 1e3:.3g} ms" for low, high in ranges)
    other = _evidence(split, roofline, second, spent[second])
    return Bound(bound, f"{told} ({own}); {other} ({others}): these overlap", second)


def _range(split: Split, bound: StepBound, seconds: float) -> tuple[float, float]:
    """Between which seconds a bound's part of a step lies, by what the steps show."""
    noise, computing = split.noise, split.step - split.waiting
    if noise is None or computing <= 0:
        return seconds, seconds
    if bound is StepBound.INPUT:
        return noise.waiting
    slow, fast = (one / computing for one in (noise.computing[1], noise.computing[0]))
    unsure = max(0.0, split.idle - noise.least_idle)
    if bound is StepBound.OVERHEAD:
        return (seconds - unsure) * fast, seconds * slow
    share = seconds / split.operating if split.operating else 0.0
    return seconds * fast, (seconds + share * unsure) * slow


def _evidence(split: Split, roofline: StepRoofline, bound: StepBound, seconds: float) -> str:
    """How it shows that a bound takes so many seconds of a step."""
    share, work = f"{seconds / split.step:.0%} of a step", roofline.of_bound(bound)
    return {
        StepBound.INPUT: f"{share} is waiting for its batch",
        StepBound.COMMUNICATION: f"for {share} processes exchange what they have",
        StepBound.OVERHEAD: _overhead(split, seconds),
        StepBound.MEMORY: (
            f"{share} is operators that move data: {work.moved_bytes / 1e9:.2g} GB at {work.gigabytes_per_second:.3g} "
            f"GB/s, {work.share_of_memory:.0%} of the bandwidth measured here for working sets like theirs; their "
            f"arithmetic needs {work.share_of_arithmetic:.0%} of their time{_far(work.share_of_memory)}"
        ),
        StepBound.COMPUTE: (
            f"{share} is operators that compute: {work.flops / 1e9:.3g} GFLOP at {work.gflops:.3g} GFLOP/s, "
            f"{work.share_of_arithmetic:.0%} of the measured ceiling; what they move needs {work.share_of_memory:.0%} "
            f"of their time{_far(work.share_of_arithmetic)}"
        ),
        StepBound.KERNELS: (
            f"{share} is operators far below both ceilings: they reach {work.share_of_arithmetic:.0%} of the measured "
            f"arithmetic and {work.share_of_memory:.0%} of the measured bandwidth"
        ),
    }[bound]


def contradiction(roofline: StepRoofline) -> str:
    """Why the evidence cannot be right; empty where nothing speaks against it."""
    for bound, told in ((StepBound.MEMORY, "moved"), (StepBound.COMPUTE, "computed")):
        work = roofline.of_bound(bound)
        over = work.share_of_memory if bound is StepBound.MEMORY else work.share_of_arithmetic
        if over > TOO_FAST:
            return (
                f"what operators {told} was {over:.1f} times as fast as was measured for this machine, so the count or "
                "the ceiling is wrong, and what bounds these operators is not known"
            )
    return ""


def of_rows(rows: Sequence[tuple[str, str, float, float, float, float]]) -> list[list[Any]]:
    """Calls (phase, operator, seconds, flops, bytes, least seconds of these) joined where their work is the same."""
    found: dict[tuple[Any, ...], list[Any]] = {}
    for phase, operator, seconds, flops, moved, least in rows:
        kept = found.setdefault((phase, operator, flops, moved), [phase, operator, 0, 0.0, 0.0, 0.0, 0.0])
        for place, value in enumerate((1, seconds, flops, moved, least), 2):
            kept[place] += value
    return list(found.values())


def _work(numbers: Sequence[float], ceiling_gflops: float) -> Work:
    calls, seconds, flops, moved, least = numbers
    return Work(int(calls), seconds, flops, moved, flops / (ceiling_gflops * 1e9), least)


def _overhead(split: Split, seconds: float) -> str:
    idle = f"in {split.idle / split.step:.0%} of a step no operator runs: it is Python and launching"
    launched = (seconds - split.idle) / split.step
    return idle if launched < 0.005 else f"{idle}; {launched:.0%} is operators that are little more than their launch"


def _far(share: float) -> str:
    return "" if share >= FAR else "; faster kernels, or a machine without other work, would come nearer to the ceiling"


def _of_the_whole(split: Split) -> tuple[StepBound, str]:
    """The same where single operators are not known: by the least that the whole step takes."""
    spent = {
        StepBound.COMMUNICATION: (split.exchanging, "for {} processes exchange what they have"),
        StepBound.INPUT: (split.waiting, "{} is waiting for its batch"),
        StepBound.OVERHEAD: (split.idle, "in {} no operator runs: it is Python and launching"),
    }
    bound = max(spent, key=lambda one: spent[one][0])
    seconds, told = spent[bound]
    if seconds > split.operating or (bound is StepBound.COMMUNICATION and seconds > split.operating / 2):
        return bound, told.format(f"{seconds / split.step:.0%} of a step")
    ceilings = {StepBound.COMPUTE: split.arithmetic, StepBound.MEMORY: split.memory}
    if split.arithmetic is None:
        return StepBound.KERNELS, "most of it is operators; the machine's ceiling was not measured"
    nearest = max(ceilings, key=lambda one: ceilings[one] or 0.0)
    share = (ceilings[nearest] or 0.0) / split.step
    if share < NEAR_CEILING:
        return StepBound.KERNELS, (
            f"most of it is operators, which were not watched one by one: their counted operations take "
            f"{split.arithmetic / split.step:.0%} of a step at the ceiling"
        )
    if nearest is StepBound.COMPUTE:
        return nearest, f"the counted operations alone take {share:.0%} of a step at the ceiling"
    return nearest, f"reading and writing weights, gradients and state once takes {share:.0%} of a step at the ceiling"
