"""What a tiny call is made of: the delivered program timed beside an empty one of the same form."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from vivace.artifact.manifest import GOLDEN_CALLS, GOLDEN_OUTPUTS, PROGRAM
from vivace.core.compute import Overhead, Reach
from vivace.core.errors import DiskFull, EnvironmentFault, NotApplicable, UsageError
from vivace.core.measurement import Interval
from vivace.core.result import Result
from vivace.data import samples
from vivace.measure.claims.conclude import summary
from vivace.measure.live import ArmSpec, LiveArm
from vivace.measure.paired import Pair, StopRule
from vivace.measure.process import Limits
from vivace.runtimes import store
from vivace.search.caches import compiler_variables
from vivace.search.laboratory import STORE_ENTRY
from vivace.search.schedule import Schedule

EMPTY_ENTRY = "vivace.runtimes.empty:open_empty"
RULE = StopRule(half_width=0.05, min_blocks=8, max_blocks=30, max_seconds=2.0, warm_seconds=0.5)
FAILURES = (EnvironmentFault, UsageError, NotApplicable, DiskFull)
"""What a worker that is asked after the verdict may report or die of; none of it harms the result."""


def overhead_of(result: Result, winner: Reach, folder: Path, calls: Path, logs: Path, schedule: Schedule) -> Overhead:
    """How far the program that is staged in `folder` is from its floor, and what an empty call through its form takes.

    The empty call is timed in one pair of fresh processes, beside the program itself, if that is likely to end before
    the artifact is due; otherwise, and where the form has no empty program, the note says why. Never raises for what a
    worker does. `winner` has a floor; `calls` are stored ones, and workers write to `logs`.
    """
    assert winner.floor_seconds is not None
    form = store.read_model(folder / PROGRAM).form
    found = Overhead(winner.seconds, winner.floor_seconds, form.value)
    trial = next((trial for trial in result.candidates if trial.plan == result.plan), None)
    seconds = schedule.left() - schedule.publish_seconds(None)
    if seconds < schedule.empty_call_seconds(trial):
        return dataclasses.replace(found, note="was not measured: no time was left")
    if samples.read(calls).mix is not None:
        return dataclasses.replace(found, note="was not measured: calls come in several shapes")
    if any(technique.program_entry for technique in result.plan):
        return dataclasses.replace(found, note="was not measured: the plan opens its program in a way of its own")
    try:
        empty, share = beside_an_empty_call(folder, calls, logs, seconds / 2)
    except FAILURES as failure:
        return dataclasses.replace(found, note=f"was not measured: {failure}")
    return dataclasses.replace(found, empty_seconds=empty, empty_share=share)


def beside_an_empty_call(folder: Path, calls: Path, logs: Path, seconds: float) -> tuple[float, Interval]:
    """The median seconds of an empty call, and its share of a call of the artifact in `folder`, by paired blocks.

    No phase of either worker may take more than `seconds`. Raises what arms raise.
    """
    one, other = specs(folder, logs / "empty")
    limits, variables = Limits().within(seconds), compiler_variables(logs)
    with (
        LiveArm(one, calls, logs / "overhead" / "program", limits, variables) as program,
        LiveArm(other, calls, logs / "overhead" / "empty", limits, variables) as empty,
    ):
        for arm in (program, empty):
            arm.ready()
        for arm in (program, empty):
            arm.start(RULE.warm_seconds)
        pair = Pair(program, empty, RULE.block_seconds)
        pair.run(RULE)
        found = pair.speedup()
        return summary([pair.readings()[1]]).median_seconds, Interval(1 / found.value, 1 / found.high, 1 / found.low)


def specs(folder: Path, to: Path) -> tuple[ArmSpec, ArmSpec]:
    """How workers open the program of an artifact, and the empty one of its golden calls' shapes, written to `to`."""
    program = str(folder / PROGRAM)
    shapes = [
        [list(leaf.shape) for leaf in stored[0]]
        for stored in (samples.read(folder / GOLDEN_CALLS), samples.read_outputs(folder / GOLDEN_OUTPUTS))
    ]
    empty = {"folder": program, "inputs": shapes[0], "outputs": shapes[1], "to": str(to)}
    return ArmSpec(STORE_ENTRY, {"folder": program, "trust": True}), ArmSpec(EMPTY_ENTRY, empty)
