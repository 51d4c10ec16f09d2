"""After the verdict: what was fused in the winner, and how near it came to what the machine can do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vivace.artifact.manifest import PROGRAM
from vivace.core.compute import Compute
from vivace.core.cost import Cost
from vivace.core.errors import WorkerFailure
from vivace.core.facts import Fact
from vivace.core.layer import Fused, FusedList
from vivace.core.machine import Ceiling, Machine
from vivace.core.result import Result
from vivace.devices import ceiling_store
from vivace.devices.caches import last_level_bytes
from vivace.devices.ceilings import PRECISIONS
from vivace.devices.roofline import reach
from vivace.measure.process import Limits, Phase, Worker
from vivace.search.laboratory import compiler_variables
from vivace.search.prepare import Prepared
from vivace.search.schedule import Schedule

PROBE_SECONDS = 5.0
"""What measuring the ceilings of one count of threads takes, the worker's start included."""
LISTING_SECONDS = 5.0
"""What listing fusions takes beside loading the program once more."""
NO_TIME = "not measured: no time was left"


def explain(result: Result, folder: Path, prepared: Prepared, machine: Machine, schedule: Schedule) -> Result:
    """The result with what was fused in its program (staged in `folder`) and with its share of the machine's ceilings.

    Both are asked of fresh workers, one after the other, after everything was timed and within the schedule; what
    could not be had is told in words. Never raises for what a worker does.
    """
    logs = prepared.work.folder
    variables = compiler_variables(logs)
    due = schedule.publish_seconds(None)
    found = FusedList(note="not listed: no time was left")
    if schedule.left() - due > LISTING_SECONDS + schedule.opening_seconds:
        found = _fused(folder / PROGRAM, prepared.program, logs / "fused", variables)
    costs = prepared.work.cost, result.plan.cost(prepared.work.cost)
    ceilings, told = ceilings_for(costs, machine, logs / "probe", schedule.left() - due)
    cache = last_level_bytes()
    on_device = any(Fact.ON_CUDA in technique.gives for technique in result.plan)
    compute = Compute(
        prepared.work.cost.flops,
        reach(costs[0], result.comparison.baseline.median_seconds, ceilings, cache),
        reach(costs[1], result.comparison.candidate.median_seconds, () if on_device else ceilings, cache),
        f"{told}; those of CUDA devices are not measured" if on_device else told,
    )
    wall_seconds = schedule.seconds - schedule.left()
    return dataclasses.replace(result, fused=found, compute=compute, wall_seconds=wall_seconds)


def _fused(program: Path, original: Path, log: Path, variables: Mapping[str, str]) -> FusedList:
    try:
        with Worker(log, Limits(), variables) as worker:
            worker.open("vivace.runtimes.fusions.lister:open_lister", {}, phase=Phase.LOAD)
            told = worker.call("fused", {"program": str(program), "original": str(original)}, Phase.COMPILE)
    except WorkerFailure as failure:
        return FusedList(note=f"not listed: {failure.reason}")
    return FusedList(tuple(Fused.from_json(group) for group in told["groups"]), told["note"])


def ceilings_for(costs: Sequence[Cost], machine: Machine, log: Path, seconds: float) -> tuple[tuple[Ceiling, ...], str]:
    """The ceilings for these costs and where they come from; from `vivace doctor` where it measured all of them."""
    kept = ceiling_store.kept(machine)
    if all(_has(kept, cost) for cost in costs):
        return kept, "MEASURED by vivace doctor on this machine"
    threads = sorted({cost.threads for cost in costs})
    if seconds < PROBE_SECONDS * len(threads):
        return kept, NO_TIME
    precisions = [name for name in PRECISIONS if name in {cost.precision for cost in costs}]
    arguments: dict[str, Any] = {"threads": threads, "precisions": precisions}
    try:
        with Worker(log) as worker:
            worker.open("vivace.measure.probe:open_probe", {}, phase=Phase.LOAD)
            told = worker.call("ceilings", arguments, Phase.MEASURE)
    except WorkerFailure as failure:
        return kept, f"not measured: {failure.reason}"
    return tuple(ceiling_store.read_ceilings(told["ceilings"])), "MEASURED after the verdict, in a process of its own"


def _has(ceilings: Sequence[Ceiling], cost: Cost) -> bool:
    return any(one.threads == cost.threads and cost.precision in one.gflops for one in ceilings)
