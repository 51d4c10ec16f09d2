"""What more cores made of a call, by threads or by copies of the program, beside Amdahl's and Gustafson's laws."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from vivace.core.measurement import Interval, Outcome
from vivace.core.plan import Plan
from vivace.core.result import Trial
from vivace.devices.scaling import Law, serial_part
from vivace.report.document import JsonDocument

SPREADING = ("threads", "instances")
"""The techniques, by name, that put a call on cores; each has a count."""
TIMED = (Outcome.OK, Outcome.NOT_FASTER)


class CoresCount(JsonDocument):
    """So many copies of a program (`instances`) with so many threads each: its speed-up over one copy with one thread,
    MEASURED in the race."""

    cores: int
    instances: int
    threads: int
    speedup: Interval


class CoresDocument(JsonDocument):
    """A plan on several counts of cores, and the part of a call that more cores do not shorten, which each law needs to
    give these speed-ups. `is_fitted` where two counts or more were timed, of which the fastest each is fitted; else one
    count implies it, and the interval is that of its speed-up."""

    kind: Literal["MEASURED"] = "MEASURED"
    plan_name: str
    counts: list[CoresCount] = Field(min_length=1)
    amdahl_serial: Interval
    gustafson_serial: Interval
    is_fitted: bool


@dataclasses.dataclass(frozen=True)
class _Spread:
    instances: int
    threads: int

    @property
    def cores(self) -> int:
        return self.instances * self.threads


def cores_of(trials: Sequence[Trial], cores: int) -> list[CoresDocument]:
    """Every plan that was timed with one copy and one thread and with more, those with copies and most counts first."""
    families: dict[Plan, dict[_Spread, Interval]] = defaultdict(dict)
    for trial in trials:
        spread = _spread_of(trial.plan, cores)
        if spread is not None and trial.speedup is not None and trial.outcome in TIMED:
            rest = Plan.of(one for one in trial.plan if one.name() not in SPREADING)
            families[rest].setdefault(spread, trial.speedup)
    found = [document for plan, seen in families.items() if (document := _document(plan, seen)) is not None]
    return sorted(found, key=lambda one: (max(c.instances for c in one.counts) < 2, -len(one.counts)))


def cores_allowed(conditions: Mapping[str, Any]) -> int:
    """The cores of the machine that a result's conditions name; 1 where they name none."""
    machine = conditions.get("machine")
    found = machine.get("cores_allowed") if isinstance(machine, Mapping) else None
    return found if isinstance(found, int) and found > 0 else 1


def cores_words(found: CoresDocument) -> str:
    """One line: the speed-ups, and what both laws make of them.

    >>> exact = [CoresCount(cores=2, instances=2, threads=1, speedup=Interval(1.6, 1.6, 1.6))]
    >>> serial = Interval(0.25, 0.25, 0.25)
    >>> cores_words(CoresDocument(plan_name="p", counts=exact, amdahl_serial=serial, gustafson_serial=serial,
    ...                           is_fitted=False)).partition(', MEASURED')[0]
    'cores: 1.6 [1.6, 1.6] times one thread on 2 (2 copies x 1)'
    """
    seen = ", ".join(f"{one.speedup} times one thread on {one.cores} ({_arranged(one)})" for one in found.counts)
    how = "fitted" if found.is_fitted else "which the one count implies"
    amdahl, gustafson = found.amdahl_serial, found.gustafson_serial
    limit = f"at most {1 / amdahl.value:.3g} times on any number" if amdahl.value > 0 else "no limit"
    most = max(one.cores for one in found.counts)
    work = most - gustafson.value * (most - 1)
    return (
        f"cores: {seen}, MEASURED in the race with {found.plan_name}; serial part, {how}: {_share(amdahl)} by Amdahl "
        f"({limit}), {_share(gustafson)} by Gustafson ({work:.3g} times the work in the time of one)"
    )


def _document(plan: Plan, seen: dict[_Spread, Interval]) -> CoresDocument | None:
    one = seen.get(_Spread(1, 1))
    more = {spread: _over(found, one) for spread, found in seen.items() if spread.cores > 1} if one else {}
    best: dict[int, Interval] = {}
    for spread, ratio in more.items():
        if spread.cores not in best or ratio.value > best[spread.cores].value:
            best[spread.cores] = ratio
    if not best:
        return None
    return CoresDocument(
        plan_name=str(plan) if len(plan) else "the original",
        counts=[
            CoresCount(cores=spread.cores, instances=spread.instances, threads=spread.threads, speedup=ratio)
            for spread, ratio in sorted(more.items(), key=lambda item: (item[0].cores, item[0].instances))
        ],
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


def _arranged(one: CoresCount) -> str:
    return f"{one.threads} threads" if one.instances == 1 else f"{one.instances} copies x {one.threads}"


def _share(one: Interval) -> str:
    return f"{one.value:.2g} [{one.low:.2g}, {one.high:.2g}]"
