"""`vv.optimize`: a model in, a proven faster artifact out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from vivace.api.explain import explain
from vivace.api.publish import Staging, publish
from vivace.api.request import check_plan, destination_of, machine_of, names_native, offered, options_of, run_folder
from vivace.api.silicon.platform import platform_of
from vivace.artifact import save
from vivace.artifact.load import load
from vivace.core.errors import EnvironmentFault
from vivace.core.plan import Plan
from vivace.core.quality import Budget
from vivace.core.result import Result
from vivace.core.technique import Technique
from vivace.core.workload import Objective, Workload
from vivace.measure.clock import SystemClock
from vivace.measure.forking import client
from vivace.measure.process import Limits
from vivace.report.duration import show_duration
from vivace.report.progress import Progress, SilentProgress
from vivace.runtimes.program import Program
from vivace.search.caches import compiler_variables
from vivace.search.prepare import original_arm, prepare
from vivace.search.run import Search, identity_of, open_journal
from vivace.search.space import check_usable, space_of
from vivace.search.verdict.ahead import Interpreters

LATE_SECONDS, LATE_SHARE = 5.0, 0.1
"""What ends later than allowed by more than both is said to: seconds, and the share of the time allowed."""


@dataclasses.dataclass(frozen=True)
class Optimized(Result):
    """The result of `optimize`; `model` is what won, ready to be called like the original."""

    @cached_property
    def model(self) -> Program:
        """The winner (or the original, when nothing beat it), loaded from the artifact when first asked for."""
        if self.artifact is None:
            raise EnvironmentFault("this result has no artifact; run optimize again with out=...")
        return load(self.artifact, trust=True)


def optimize(
    work: Workload,
    budget: Budget = Budget(),
    objective: str = "latency",
    time: str | float | None = None,
    out: str | Path | None = None,
    *,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    gate: str = "strict",
    preset: str = "default",
    calls: int | None = None,
    resume: bool = False,
    native: bool = False,
    fixed_shapes: bool = False,
    keep: Sequence[str] = (),
    device: str = "auto",
    seed: int = 0,
    plan: Plan | Sequence[str | Mapping[str, Any]] | None = None,
    exhaustive: bool = False,
    progress: Progress | None = None,
    limits: Limits = Limits(load=300),
    extra: Mapping[str, Sequence[type[Technique]]] | None = None,
) -> Optimized:
    """Find the fastest way to run a workload on this machine, prove it, and keep it as an artifact.

    `budget` is the quality that may be lost; `objective` latency, throughput, memory or size; `time` the whole time
    allowed, such as "5m" or 300 (seconds): when it ends, the best plan so far is confirmed and delivered. `out` is the
    artifact's folder; None keeps it in a temporary one until the interpreter exits. `only` and `without` name
    techniques. `gate` is strict, point or fidelity. `preset` is quick, default or thorough: 1, 5 or 30 minutes where no
    time is given, and at most 2, 3 or 5 plans confirmed in 3, 3 or 5 fresh pairs of processes each. `calls` is how many
    calls a loaded model will serve: the winner is then the plan whose loading and that many calls take the least time;
    None compares single calls. `resume` goes on where a run with this `out` was stopped. `native` lets plans compete
    whose artifact is native code, which loads only with trust=True. `fixed_shapes` lets plans compete that accept
    exactly the example's shapes. `device` is cpu, cuda, tpu or auto, which offers plans whatever is here; on a TPU one
    program at a time can be open, so that candidates are ranked by their races with the original alone. `keep` names
    layers that no quantization touches, by module path or pattern ("head", "layer4.*"). `extra` adds techniques by
    "module:tuple" for this run. `plan` tries one plan and no other: a list of techniques by name, such as ["threads",
    "openvino"], or with their settings as results.json holds them.

    Returns the result, with the original as its artifact when nothing beat it. Raises UsageError, UnsupportedModel,
    EnvironmentFault, DiskFull; what a candidate does never raises.

    >>> result = optimize(work, time="2m", out="fast")  # doctest: +SKIP
    >>> result.speedup.low > 1  # doctest: +SKIP
    True
    """
    started = SystemClock().now()
    client.prepare()
    progress = progress or SilentProgress()
    options = options_of(
        work,
        budget=budget,
        objective=objective,
        time=time,
        only=only,
        without=without,
        gate=gate,
        preset=preset,
        calls=calls,
        extra=extra,
        plan=plan,
        exhaustive=exhaustive,
        seed=seed,
        limits=limits,
    )
    machine = machine_of(device)
    platform = platform_of(device, machine)
    destination = destination_of(out)
    save.check_destination(destination)
    with (
        run_folder(destination, resume) as folder,
        save.disk_errors(folder),
        Interpreters(original_arm(work), compiler_variables(folder, platform)).started(
            options.restarts, machine.cores_allowed
        ),
    ):
        progress.stage("prepare", f"reading the data and capturing {work.name}")
        native = native or names_native(options)
        prepared = prepare(
            work,
            folder,
            fixed_shapes=fixed_shapes,
            native=native,
            keep=keep,
            throughput=options.objective is Objective.THROUGHPUT,
            seconds=options.seconds,
            limits=limits,
        )
        notes = (*prepared.notes, *([platform.note] if platform is not None and platform.note else []))
        prepared = dataclasses.replace(prepared, platform=platform, notes=notes)
        usable = offered(machine, device, platform)
        space = space_of(prepared.work, usable, options.known, options.only, options.without)
        check_usable(space, options.only, options.without)
        with open_journal(folder, identity_of(prepared, machine, options), resume) as journal:
            staging = Staging(folder, prepared)
            check_plan(options, space)
            search = Search(prepared, space, options, machine, folder, journal, progress, started)
            result = search.run(staging.deliver)
            result = explain(result, staging.folder(result.plan), prepared, machine, search.schedule)
            fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(Result)}
            notes = (*overrun(result.wall_seconds, options.seconds), *result.notes)
            final = Optimized(**fields | {"artifact": destination, "notes": notes})
            publish(final, staging, prepared, machine, destination)
            # the artifact's own record was written before it was checked in a process of its own
            took = options.seconds - search.schedule.left()
            return dataclasses.replace(final, wall_seconds=took, notes=(*overrun(took, options.seconds), *result.notes))


def overrun(took: float, allowed: float) -> Iterator[str]:
    """What is told to one who waited clearly longer than the seconds that were allowed; nothing otherwise.

    >>> list(overrun(14.0, 10.0)), [note.partition(",")[0] for note in overrun(94.0, 10.0)]
    ([], ['it took 1m34s'])
    """
    if took - allowed > max(LATE_SECONDS, LATE_SHARE * allowed):
        yield (
            f"it took {show_duration(took)}, longer than the {show_duration(allowed)} allowed (--time): the original "
            "is measured, and what is delivered is recorded and checked, however long that takes"
        )
