"""What more cores made of a call, by threads or by copies of the program, by Amdahl's and Gustafson's laws."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Sequence

from vivace.core.compute import Cores, CoresCount
from vivace.core.measurement import Interval, Outcome
from vivace.core.plan import Plan
from vivace.core.result import Trial
from vivace.devices.scaling import Law, serial_part

SPREADING = ("threads", "instances")
"""The techniques, by name, that put a call on cores; each has a count."""
TIMED = (Outcome.OK, Outcome.NOT_FASTER)


@dataclasses.dataclass(frozen=True)
class _Spread:
    instances: int
    threads: int

    @property
    def cores(self) -> int:
        return self.instances * self.threads


def cores_of(trials: Sequence[Trial], cores: int) -> tuple[Cores, ...]:
    """Every plan that was timed with one copy and one thread and with more, those with copies and most counts first."""
    families: dict[Plan, dict[_Spread, Interval]] = defaultdict(dict)
    for trial in trials:
        spread = _spread_of(trial.plan, cores)
        if spread is not None and trial.speedup is not None and trial.outcome in TIMED:
            rest = Plan.of(one for one in trial.plan if one.name() not in SPREADING)
            families[rest].setdefault(spread, trial.speedup)
    found = [one for plan, seen in families.items() if (one := _fitted(plan, seen)) is not None]
    return tuple(sorted(found, key=lambda one: (max(c.instances for c in one.counts) < 2, -len(one.counts))))


def _fitted(plan: Plan, seen: dict[_Spread, Interval]) -> Cores | None:
    one = seen.get(_Spread(1, 1))
    more = {spread: _over(found, one) for spread, found in seen.items() if spread.cores > 1} if one else {}
    best: dict[int, Interval] = {}
    for spread, ratio in more.items():
        if spread.cores not in best or ratio.value > best[spread.cores].value:
            best[spread.cores] = ratio
    if not best:
        return None
    return Cores(
        plan_name=str(plan) if len(plan) else "the original",
        counts=tuple(
            CoresCount(cores=spread.cores, instances=spread.instances, threads=spread.threads, speedup=ratio)
            for spread, ratio in sorted(more.items(), key=lambda item: (item[0].cores, item[0].instances))
        ),
        amdahl_serial=serial_part(Law.AMDAHL, best),
        gustafson_serial=serial_part(Law.GUSTAFSON, best),
        is_fitted=len(best) > 1,
    )


def _spread_of(plan: Plan, cores: int) -> _Spread | None:
    """How a plan is put on cores; None where it leaves that to the runtime. Copies share the cores unless told."""
    counts = {one.name(): int(one.settings().get("count", 0)) for one in plan if one.name() in SPREADING}
    if not counts or min(counts.values()) < 1:
        return None
    copies = counts.get("instances", 1)
    return _Spread(copies, counts.get("threads") or max(1, cores // copies))


def _over(found: Interval, one: Interval) -> Interval:
    """The ratio of two speed-ups over the same original, each with an error of its own."""
    value = found.value / one.value
    up = math.hypot(math.log(found.high / found.value), math.log(one.value / one.low))
    down = math.hypot(math.log(found.value / found.low), math.log(one.high / one.value))
    return Interval(value, value * math.exp(-down), value * math.exp(up))
