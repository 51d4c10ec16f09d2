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
from vivace.measure.memory import available_bytes
from vivace.measure.paired import Pair, StopRule

FAR_BEHIND = 3.0
"""A challenger whose calls took this many times the champion's while it was warmed up is not timed against it."""
KEPT_SHARE = 0.2
"""Of the free memory that a champion may take up while others are tried; the one before it stays otherwise."""


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

    def duel(self, challenger: LiveArm) -> Interval | None:
        """The champion's seconds over the challenger's, until the challenger is known to be slower or the rule is met.

        None when there is no champion. One that is far behind by its warm-up is not timed again: its interval then says
        only that. Raises WorkerFailure when the challenger fails; a champion that fails loses its
        place.
        """
        if self._arm is None:
            return None
        behind = self._arm.seconds_per_call / challenger.seconds_per_call
        if behind * FAR_BEHIND < 1.0:
            return Interval(behind, 0.0, 1 / FAR_BEHIND)
        pair = Pair(self._arm, challenger, self._rule.block_seconds, self._chance)
        try:
            pair.run(self._rule, hopeless=is_lost)
        except WorkerFailure:
            if self._is_well():
                raise
            self.close()
            return None
        return pair.speedup()

    def rank(self, arm: LiveArm, trial: Trial, found: Interval | None, kept: contextlib.ExitStack) -> Trial:
        """A trial that was raced, with its standing; `found` is what its arm showed in the duel.

        When it is faster, it takes the champion's place: `kept` is what would end the arm, and it is taken out of that.
        """
        if trial.speedup is None:
            return trial
        standing = trial.speedup.value if found is None else self._standing * found.value
        if standing > self._standing:
            self._crown(arm, standing, kept)
        return trial if self._arm is None else trial.replace(standing=standing)

    def _is_well(self) -> bool:
        """Whether the champion still answers: if so, what failed was the challenger."""
        try:
            return self._arm is not None and bool(self._arm.time(0, 1))
        except WorkerFailure:
            return False

    def _crown(self, arm: LiveArm, standing: float, kept: contextlib.ExitStack) -> None:
        """Take the arm in, unless it is so large that the next candidates would lack the memory."""
        if arm.peak_bytes > KEPT_SHARE * available_bytes():
            return
        self.close()
        kept.pop_all()
        self._arm, self._standing = arm, standing

    def close(self) -> None:
        """End the champion's worker; the next trial takes its place."""
        if self._arm is not None:
            self._arm.close()
        self._arm, self._standing = None, 0.0


def is_lost(found: Interval | None) -> bool:
    """Whether a duel showed the challenger to be slower."""
    return found is not None and found.high < 1.0
