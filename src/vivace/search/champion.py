"""The fastest candidate so far, kept alive: what comes close is timed against it directly.

Two fast programs beside a slow original differ by less than the original's own noise. Against each other they make many
calls a second, so that two seconds tell them apart.
"""

from __future__ import annotations

import contextlib
import random

from vivace.core.errors import WorkerFailure
from vivace.core.measurement import Interval
from vivace.core.result import Trial
from vivace.measure.live import LiveArm
from vivace.measure.paired import Pair, StopRule

CLEARLY_SLOWER = 0.98
"""A challenger whose upper bound is below this share of the champion's speed is timed no longer."""
FAR_BEHIND = 0.7
"""One whose race ended below this share of the champion's standing is not timed against it at all."""


class Champion:
    """Holds the arm of the best candidate; nobody at first. `close` ends it.

    A trial's *standing* is its speed-up over the original by way of the champions before it: the first one's from its
    race, every other's the champion's times what the two showed against each other. It ranks, and claims nothing.
    """

    def __init__(self, rule: StopRule, seed: int = 0) -> None:
        self._rule = rule
        self._chance = random.Random(seed)
        self._arm: LiveArm | None = None
        self._standing = 0.0

    def rank(self, arm: LiveArm, trial: Trial, kept: contextlib.ExitStack) -> Trial:
        """A trial that was raced, with its standing; `arm` takes the champion's place when it is faster.

        `kept` is what would end the arm; a new champion is taken out of it. Raises WorkerFailure when the arm fails.
        """
        if trial.speedup is None:
            return trial
        standing = trial.speedup.value
        if self._arm is not None:
            if trial.speedup.high < self._standing * FAR_BEHIND:
                return trial
            found = self._duel(arm)
            standing = standing if found is None else self._standing * found.value
        if standing > self._standing or self._arm is None:
            self._crown(arm, standing, kept)
        return trial.replace(standing=standing)

    def _duel(self, arm: LiveArm) -> Interval | None:
        """Champion's seconds over the challenger's; None when the champion itself failed."""
        assert self._arm is not None
        pair = Pair(self._arm, arm, self._rule.block_seconds, self._chance)
        try:
            pair.run(self._rule, hopeless=lambda speedup: speedup.high < CLEARLY_SLOWER)
        except WorkerFailure:
            if self._is_well():
                raise
            self.close()
            return None
        return pair.speedup()

    def _is_well(self) -> bool:
        """Whether the champion still answers: if so, what failed was the challenger."""
        try:
            return self._arm is not None and bool(self._arm.time(0, 1))
        except WorkerFailure:
            return False

    def _crown(self, arm: LiveArm, standing: float, kept: contextlib.ExitStack) -> None:
        self.close()
        kept.pop_all()
        self._arm, self._standing = arm, standing

    def close(self) -> None:
        """End the champion's worker; the next trial takes its place."""
        if self._arm is not None:
            self._arm.close()
        self._arm, self._standing = None, 0.0
