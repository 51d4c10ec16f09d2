"""`vivace optimize --dry-run`: what would be tried, and what that would take, without building or timing any plan."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vivace.api.request import check_plan, machine_of, names_native, offered, options_of
from vivace.api.silicon.platform import platform_of
from vivace.core.forecast import Forecast
from vivace.core.plan import Plan
from vivace.core.quality import Budget
from vivace.core.workload import Objective, Workload
from vivace.measure import environment
from vivace.measure.clock import SystemClock
from vivace.search.account.forecast import forecast_of
from vivace.search.prepare import prepare
from vivace.search.rank import Ranking
from vivace.search.space import check_usable, space_of


def preview(
    work: Workload,
    budget: Budget = Budget(),
    *,
    objective: str = "latency",
    time: str | float | None = None,
    preset: str = "default",
    calls: int | None = None,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    native: bool = False,
    fixed_shapes: bool = False,
    device: str = "auto",
    gate: str = "strict",
    keep: Sequence[str] = (),
    seed: int = 0,
    plan: Plan | Sequence[str | Mapping[str, Any]] | None = None,
) -> Forecast:
    """The plans that `optimize` would try, in this order if each goes as predicted, with the time and the disk that the
    search is likely to take; with `plan`, that one alone. Nothing is built or timed. The arguments are those of
    `optimize`, and the errors that it raises for them too.

    >>> preview(work, time="2m").plans[0].speedup  # doctest: +SKIP
    2.4
    """
    clock = SystemClock()
    started = clock.now()
    options = options_of(
        work,
        budget=budget,
        objective=objective,
        time=time,
        preset=preset,
        calls=calls,
        only=only,
        without=without,
        gate=gate,
        seed=seed,
        plan=plan,
    )
    machine = machine_of(device)
    platform = platform_of(device, machine)
    with tempfile.TemporaryDirectory(prefix="vivace-") as folder:
        native = native or names_native(options)
        prepared = prepare(
            work,
            Path(folder),
            fixed_shapes=fixed_shapes,
            native=native,
            keep=keep,
            throughput=options.objective is Objective.THROUGHPUT,
            seconds=options.seconds,
        )
        usable = offered(machine, device, platform)
        space = space_of(prepared.work, usable, options.known, options.only, options.without)
        check_usable(space, options.only, options.without)
        check_plan(options, space)
        ranking = Ranking.on(machine, prepared.work.cost)
        threads = environment.snapshot()["threads"]
        return forecast_of(prepared, space, options, ranking, threads, clock.now() - started)
