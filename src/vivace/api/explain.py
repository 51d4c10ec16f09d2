"""After the verdict: what was fused in the winner, where the time goes, how near it came to the machine's limits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vivace.api.overhead import FAILURES, overhead_of
from vivace.api.profiling import Reader, profiles_of
from vivace.api.sensitivity import sensitivity_of
from vivace.artifact.manifest import PROGRAM
from vivace.core.compute import Compute, Reach
from vivace.core.cost import Cost
from vivace.core.layer import StoredWeights
from vivace.core.machine import Ceiling, Machine
from vivace.core.plan import Plan
from vivace.core.result import Result
from vivace.devices import ceiling_store
from vivace.devices.caches import last_level_bytes
from vivace.devices.ceilings import DEVICE_PRECISIONS, PRECISIONS
from vivace.devices.roofline import is_mostly_overhead, is_of, reach
from vivace.measure.process import Limits, Phase, Worker
from vivace.runtimes import store
from vivace.search.build import changes_flops
from vivace.search.prepare import Prepared
from vivace.search.schedule import Schedule

PROBE_SECONDS = 5.0
"""What measuring the ceilings of one count of threads takes, the worker's start included."""
LISTING_SECONDS = 5.0
"""What listing fusions takes beside loading the program once more."""
MEASURED = "MEASURED"
BY_DOCTOR = f"{MEASURED} by vivace doctor on this machine"
NO_TIME = "not measured: no time was left"


def explain(result: Result, folder: Path, prepared: Prepared, machine: Machine, schedule: Schedule) -> Result:
    """The result with what was fused in its program (staged in `folder`), with where the time of a call goes in the
    original and in it, with its share of the machine's ceilings, for a tiny call with what an empty one takes, and with
    how much each layer suffers from int8 where that was a question.

    All are asked of fresh workers, one after the other, after everything was timed and within the schedule; what
    could not be had is told in words. Never raises for what a worker does.
    """
    logs = prepared.work.folder
    reader = Reader(result, folder / PROGRAM, prepared, schedule)
    found = reader.winner(LISTING_SECONDS)
    program = store.describe(folder / PROGRAM)
    costs = prepared.work.cost, cost_of(result.plan, prepared.work.cost, program.flops_share)
    times = result.comparison.baseline.median_seconds, result.comparison.candidate.median_seconds
    ceilings, told = ceilings_for(costs, times, machine, logs / "probe", reader.left())
    cache = last_level_bytes()
    original = reach(costs[0], times[0], ceilings, cache)
    winner = reach(costs[1], times[1], ceilings, cache)
    is_counted = program.flops_share is not None or not any(map(changes_flops, result.plan))
    winner = dataclasses.replace(winner, is_counted=is_counted)
    compute = Compute(prepared.work.cost.flops, original, winner, _told(told, winner))
    if is_mostly_overhead(winner):
        overhead = overhead_of(result, winner, folder, prepared.confirm_calls, logs, schedule)
        compute = dataclasses.replace(compute, overhead=overhead)
    return dataclasses.replace(
        result,
        fused=found.fused,
        compute=compute,
        profiles=profiles_of(found, *reader.original()),
        sensitivity=sensitivity_of(result.plan, folder / PROGRAM, prepared, schedule),
        stored_weights=StoredWeights.of(program.stored_weights),
        wall_seconds=schedule.seconds - schedule.left(),
    )


def cost_of(plan: Plan, original: Cost, flops_share: float | None) -> Cost:
    """The work of a plan's call; of its operations this share of the original's was counted, if it was."""
    promised = plan.cost(original)
    if flops_share is None:
        return promised
    guessed = Plan(tuple(filter(changes_flops, plan))).cost(original).flops
    return promised.replace(flops=promised.flops * flops_share * original.flops / guessed if guessed else 0.0)


def _told(told: str, winner: Reach) -> str:
    """Where the ceilings come from; why the winner has none although others were measured."""
    if winner.device == "tpu":
        return "not measured: Vivace has no measured ceilings of a TPU"
    if winner.share is None and told.startswith(MEASURED):
        return f"not measured: PyTorch has no product in {winner.precision} to measure it by here"
    return told


def ceilings_for(
    costs: Sequence[Cost], times: Sequence[float], machine: Machine, log: Path, seconds: float
) -> tuple[tuple[Ceiling, ...], str]:
    """The ceilings for these costs and where they come from; from `vivace doctor` where it measured all of them.

    `times` are what calls of these costs took: where one is shorter than the kept ceilings allow, the machine was busy
    when they were measured, and they are measured once more.
    """
    kept = ceiling_store.kept(machine)
    is_known = all(_has(kept, cost) for cost in costs)
    is_exceeded = any(_exceeds(kept, cost, time) for cost, time in zip(costs, times, strict=True))
    if is_known and not is_exceeded:
        return kept, BY_DOCTOR
    threads = sorted({cost.threads for cost in costs if cost.device == "cpu"})
    on_device = [name for name in DEVICE_PRECISIONS if name in {c.precision for c in costs if c.device == "cuda"}]
    if seconds < PROBE_SECONDS * (len(threads) + len(on_device)):
        return kept, f"{BY_DOCTOR}, while it was busy: a call was faster than they allow" if is_known else NO_TIME
    precisions = [name for name in PRECISIONS if name in {c.precision for c in costs if c.device == "cpu"}]
    arguments: dict[str, Any] = {"threads": threads, "precisions": precisions, "on_device": on_device}
    try:
        with Worker(log, Limits().within(seconds), fresh=False) as worker:
            worker.open("vivace.measure.services.probe:open_probe", {}, phase=Phase.LOAD)
            told = worker.call("ceilings", arguments, Phase.MEASURE)
    except FAILURES as failure:
        return kept, f"not measured: {failure}"
    found = ceiling_store.best_of(kept, ceiling_store.read_ceilings(told["ceilings"]))
    return found, f"{MEASURED} after the verdict, in a process of its own"


def _exceeds(ceilings: Sequence[Ceiling], cost: Cost, seconds: float) -> bool:
    """Whether a call was faster than the ceilings allow."""
    return (reach(cost, seconds, ceilings, last_level_bytes()).share or 0.0) > 1.0


def _has(ceilings: Sequence[Ceiling], cost: Cost) -> bool:
    return any(is_of(one, cost) for one in ceilings)
