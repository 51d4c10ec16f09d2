"""What follows the trials of a training takes, and is kept for it: the plan's proof, confirmation and diagnosis."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping

from vivace.core.plan import Plan
from vivace.search.schedule import PAIR_OPENINGS

PAIRS = 4
"""Pairs of fresh processes: three that confirm the plan, and one of the original against itself."""
PROOF_SECONDS, RACE_SECONDS = 2.5, 8.0
"""What proving and racing a plan takes at a guess, before one was."""
MORE_STEPS = 1.5
"""How many times as long the delivered plan's proof takes as a trial's: three steps instead of two."""


@dataclasses.dataclass
class Ending:
    """What trials have shown of it. `diagnosis_seconds` is what diagnosing the original took; `spared_seconds` tells
    what a worker of a pair takes longer to start than one that was raced."""

    diagnosis_seconds: float = 0.0
    spared_seconds: Callable[[], float] = lambda: 0.0
    proofs: dict[Plan, float] = dataclasses.field(default_factory=dict)
    races: dict[Plan, float] = dataclasses.field(default_factory=dict)

    def seconds(self, plan: Plan) -> float:
        """What delivering a plan is likely to take; one that was not tried, as those that were in the median.

        >>> shown = Ending(10.0, lambda: 5.0)
        >>> shown.seconds(Plan())
        71.75
        >>> shown.races[Plan()] = 6.0
        >>> shown.seconds(Plan())
        63.75
        """
        proof, race = _of(self.proofs, plan, PROOF_SECONDS), _of(self.races, plan, RACE_SECONDS)
        pair = race + PAIR_OPENINGS * self.spared_seconds()
        return MORE_STEPS * proof + PAIRS * pair + self.diagnosis_seconds

    def trial_seconds(self) -> float:
        """What proving and racing another plan is likely to take.

        >>> Ending().trial_seconds()
        10.5
        """
        return _median(self.proofs, PROOF_SECONDS) + _median(self.races, RACE_SECONDS)


def _of(seen: Mapping[Plan, float], plan: Plan, guess: float) -> float:
    return seen.get(plan, _median(seen, guess))


def _median(seen: Mapping[Plan, float], guess: float) -> float:
    return statistics.median(seen.values()) if seen else guess
