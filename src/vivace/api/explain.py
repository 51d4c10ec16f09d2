"""After the verdict: what was fused in the winner, how near it came to the machine's limits, what calling costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vivace.api.overhead import overhead_of
from vivace.artifact.manifest import PROGRAM
from vivace.core.compute import Compute, Reach
from vivace.core.cost import Cost
from vivace.core.errors import EnvironmentFault, NotApplicable, UsageError
from vivace.core.facts import Fact
from vivace.core.layer import Fused, FusedList
from vivace.core.machine import Ceiling, Machine
from vivace.core.result import Result
from vivace.devices import ceiling_store
from vivace.devices.caches import last_level_bytes
from vivace.devices.ceilings import PRECISIONS
from vivace.devices.roofline import is_mostly_overhead, reach
from vivace.measure.process import Limits, Phase, Worker
from vivace.search.laboratory import compiler_variables
from vivace.search.prepare import Prepared
from vivace.search.schedule import Schedule

PROBE_SECONDS = 5.0
"""What measuring the ceilings of one count of threads takes, the worker's start included."""
LISTING_SECONDS = 5.0
"""What listing fusions takes beside loading the program once more."""
MEASURED = "MEASURED"
FAILURES = (EnvironmentFault, UsageError, NotApplicable)
"""What a worker may report or die of; none of it harms the result."""
NO_TIME = "not measured: no time was left"


def explain(result: Result, folder: Path, prepared: Prepared, machine: Machine, schedule: Schedule) -> Result:
    """The result with what was fused in its program (staged in `folder`), with its share of the machine's ceilings and,
    for a tiny call, with what an empty one takes.

    All are asked of fresh workers, one after the other, after everything was timed and within the schedule; what
    could not be had is told in words. Never raises for what a worker does.
    """
    logs = prepared.work.folder
    variables = compiler_variables(logs)
    due = schedule.publish_seconds(None)
    found = FusedList(note="not listed: no time was left")
    seconds = schedule.left() - due
    if seconds > LISTING_SECONDS + schedule.opening_seconds:
        limits = Limits().within(seconds)
        found = fused_in(folder / PROGRAM, prepared.program, logs / "fused", variables, limits)
    costs = prepared.work.cost, result.plan.cost(prepared.work.cost)
    ceilings, told = ceilings_for(costs, machine, logs / "probe", schedule.left() - due)
    cache = last_level_bytes()
    on_device = any(Fact.ON_CUDA in technique.gives for technique in result.plan)
    original = reach(costs[0], result.comparison.baseline.median_seconds, ceilings, cache)
    winner = reach(costs[1], result.comparison.candidate.median_seconds, () if on_device else ceilings, cache)
    compute = Compute(prepared.work.cost.flops, original, winner, _told(told, winner, on_device))
    if is_mostly_overhead(winner):
        overhead = overhead_of(result, winner, folder, prepared.confirm_calls, logs, schedule)
        compute = dataclasses.replace(compute, overhead=overhead)
    wall_seconds = schedule.seconds - schedule.left()
    return dataclasses.replace(result, fused=found, compute=compute, wall_seconds=wall_seconds)


def _told(told: str, winner: Reach, on_device: bool) -> str:
    """Where the ceilings come from; why the winner has none although others were measured."""
    if on_device:
        return "not measured: ceilings of CUDA devices are not measured yet"
    if winner.share is None and told.startswith(MEASURED):
        return f"not measured: PyTorch has no product in {winner.precision} to measure it by here"
    return told


def fused_in(program: Path, original: Path, log: Path, variables: Mapping[str, str], limits: Limits) -> FusedList:
    """What is fused in a program folder, asked of a fresh worker; the reason where it cannot tell."""
    try:
        with Worker(log, limits, variables) as worker:
            worker.open("vivace.runtimes.fusions.lister:open_lister", {}, phase=Phase.LOAD)
            told = worker.call("fused", {"program": str(program), "original": str(original)}, Phase.COMPILE)
    except FAILURES as failure:
        return FusedList(note=f"not listed: {failure}")
    return FusedList(tuple(Fused.from_json(group) for group in told["groups"]), told["note"])


def ceilings_for(costs: Sequence[Cost], machine: Machine, log: Path, seconds: float) -> tuple[tuple[Ceiling, ...], str]:
    """The ceilings for these costs and where they come from; from `vivace doctor` where it measured all of them."""
    kept = ceiling_store.kept(machine)
    if all(_has(kept, cost) for cost in costs):
        return kept, f"{MEASURED} by vivace doctor on this machine"
    threads = sorted({cost.threads for cost in costs})
    if seconds < PROBE_SECONDS * len(threads):
        return kept, NO_TIME
    precisions = [name for name in PRECISIONS if name in {cost.precision for cost in costs}]
    arguments: dict[str, Any] = {"threads": threads, "precisions": precisions}
    try:
        with Worker(log, Limits().within(seconds)) as worker:
            worker.open("vivace.measure.probe:open_probe", {}, phase=Phase.LOAD)
            told = worker.call("ceilings", arguments, Phase.MEASURE)
    except FAILURES as failure:
        return kept, f"not measured: {failure}"
    found = tuple(ceiling_store.read_ceilings(told["ceilings"]))
    return found, f"{MEASURED} after the verdict, in a process of its own"


def _has(ceilings: Sequence[Ceiling], cost: Cost) -> bool:
    return any(one.threads == cost.threads and cost.precision in one.gflops for one in ceilings)
