"""What the user asked of a search, checked once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from vivace.core.plan import Plan
from vivace.core.quality import Budget, Gate
from vivace.core.result import Trial
from vivace.core.technique import Technique
from vivace.core.workload import Objective
from vivace.measure.process import Limits
from vivace.search.evaluation import Metric

SAME_SPEED = 0.02


@dataclasses.dataclass(frozen=True)
class Options:
    """The rules of one search. `seconds` is the whole time allowed, preparation and confirmation included.

    `known` are the techniques that may be used; `extra` names further ones by "module:tuple" for the builder.
    `plan` is the only plan to try, to reproduce a trial. `calls` is how many calls a loaded model will serve: the total
    time of so many chooses among the finalists, loading included; None chooses by the time of one call.
    """

    budget: Budget
    gate: Gate
    objective: Objective
    seconds: float
    metric: Metric | None
    known: Mapping[str, type[Technique]]
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    plan: Plan | None = None
    exhaustive: bool = False
    limits: Limits = Limits()
    seed: int = 0
    finalists: int = 3
    restarts: int = 3
    calls: int | None = None

    def merit(self, trial: Trial) -> float:
        """What the objective makes large: the standing among candidates, or one over the bytes.

        Who has no standing counts by the lower bound of the speed-up and not by its value: of many candidates, the best
        value is the one that was disturbed most.
        """
        if self.objective is Objective.MEMORY:
            return 1.0 / (trial.peak_memory_bytes or float("inf"))
        if self.objective is Objective.SIZE:
            return 1.0 / (trial.size_bytes or float("inf"))
        return trial.rank_speedup

    @property
    def by_speed(self) -> bool:
        """Whether the objective is a time, so that a race can drop a candidate early."""
        return self.objective in (Objective.LATENCY, Objective.THROUGHPUT)
