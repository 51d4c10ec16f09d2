"""Which plan is likely to be fastest: the roofline's prediction, corrected by what was measured so far."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable

from vivace.core.cost import Cost
from vivace.core.plan import Plan
from vivace.core.technique import Stage


@dataclasses.dataclass
class Ranking:
    """Predicted seconds of a plan, with a correction learned from each measurement.

    A plan's correction is the mean log ratio of measured to predicted seconds over the measured plans that share its
    compiler and precision; failing that its compiler; failing that all. The baseline's own measurement anchors it.
    """

    cost: Cost
    seconds_of: Callable[[Cost], float]
    residuals: list[tuple[Plan, float]] = dataclasses.field(default_factory=list)

    def learn(self, plan: Plan, measured_seconds: float) -> None:
        """Remember how far the prediction was off for this plan."""
        self.residuals.append((plan, math.log(measured_seconds / self._raw(plan))))

    def predicted_seconds(self, plan: Plan) -> float:
        """Seconds of one call."""
        return self._raw(plan) * math.exp(self._correction(plan))

    def ordered(self, plans: Iterable[Plan]) -> list[Plan]:
        """The most promising first; shorter plans first among equals."""
        return sorted(plans, key=lambda plan: (self.predicted_seconds(plan), len(plan), str(plan)))

    def _raw(self, plan: Plan) -> float:
        return self.seconds_of(plan.cost(self.cost))

    def _correction(self, plan: Plan) -> float:
        for key in (_numerics, _compiler, _anything):
            alike = [residual for other, residual in self.residuals if key(other) == key(plan)]
            if alike:
                return sum(alike) / len(alike)
        return 0.0


def _numerics(plan: Plan) -> tuple[str, ...]:
    return tuple(str(t) for t in plan.techniques if t.stage in (Stage.PRECISION, Stage.COMPILE))


def _compiler(plan: Plan) -> tuple[str, ...]:
    return tuple(t.name() for t in plan.techniques if t.stage is Stage.COMPILE)


def _anything(plan: Plan) -> None:
    return None
