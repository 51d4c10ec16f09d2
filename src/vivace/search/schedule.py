"""How the user's time is spent: what is left, what trials and confirmations are likely to take, when to stop."""

from __future__ import annotations

import dataclasses
import statistics

from vivace.core.plan import Plan
from vivace.core.result import Trial
from vivace.measure.clock import Clock, SystemClock
from vivace.measure.paired import StopRule
from vivace.search.rank import compiler_of

FIRST_GUESS_SECONDS = 4.0
"""How long opening the original takes, before it was seen."""
RACE_SECONDS = 5.0
"""What judging and racing a candidate takes, beside opening it."""
PAIR_OPENINGS = 1.5
"""Two interpreters that start side by side take this many times as long as one."""
SPARE = 1.2
"""A confirmation is planned with a fifth more than it is likely to take."""
RECENT = 5
SHORT_SECONDS = 180.0
"""Under this, all of the time goes to the plans themselves."""
ACCOUNT_OPENINGS = 2
ACCOUNT_SECONDS = 6.0
"""Two workers after the verdict: one lists what was fused, one measures the machine's ceilings."""
CACHED_LOAD_SECONDS = 5.0
"""A program that compiles when it is loaded finds its own compiler's cache the second time."""


@dataclasses.dataclass
class Schedule:
    """`seconds` are all that the user gave, counted from the clock's reading `started`.

    `opening_seconds` is what opening the original's arm took: an interpreter, the model, the warm-up. `trial_seconds`
    are those of the trials so far, by compiler.
    """

    seconds: float
    started: float
    restarts: int
    clock: Clock = dataclasses.field(default_factory=SystemClock)
    opening_seconds: float = FIRST_GUESS_SECONDS
    trial_seconds: dict[str, list[float]] = dataclasses.field(default_factory=dict)

    def left(self) -> float:
        """Seconds that are left; negative when the time is over."""
        return self.seconds - (self.clock.now() - self.started)

    def rule(self) -> StopRule:
        """How long the blocks of one confirmation may take: a twelfth of the time, between 3 and 30 seconds."""
        longest = min(30.0, max(3.0, self.seconds / 12))
        return StopRule(half_width=0.01, min_blocks=12, max_blocks=60, max_seconds=longest, warm_seconds=2.0)

    def confirm_seconds(self, trial: Trial | None) -> float:
        """What confirming a trial is likely to take: it is judged, and each restart opens both arms side by side."""
        pairs = self.restarts * (PAIR_OPENINGS * self.opening_seconds + self._loading(trial))
        measured = pairs + self._candidate_seconds(trial) + self.rule().max_seconds
        return SPARE * measured + self.publish_seconds(trial)

    def rung_seconds(self) -> float:
        """What is kept for measuring the best plain rung beside the winner; nothing when time is short."""
        return 0.0 if self.seconds < SHORT_SECONDS else self._rung_seconds()

    def time_for_the_rung(self) -> bool:
        """Whether it can still be measured before the artifact is due."""
        return self.left() - self.publish_seconds(None) > self._rung_seconds()

    def account_seconds(self) -> float:
        """What is kept for saying what was fused and how near the machine's ceilings it came; nothing when time is
        short."""
        return 0.0 if self.seconds < SHORT_SECONDS else ACCOUNT_OPENINGS * self.opening_seconds + ACCOUNT_SECONDS

    def _rung_seconds(self) -> float:
        return self.restarts * PAIR_OPENINGS * self.opening_seconds + self.rule().max_seconds / 2

    def publish_seconds(self, trial: Trial | None) -> float:
        """What recording an artifact and checking it is likely to take, each in a process of its own."""
        return 2 * self._candidate_seconds(trial)

    def _candidate_seconds(self, trial: Trial | None) -> float:
        return self.opening_seconds + self._loading(trial)

    def _loading(self, trial: Trial | None) -> float:
        return min(trial.load_seconds if trial else 0.0, CACHED_LOAD_SECONDS)

    def allowed(self, leader: Trial | None) -> float:
        """Seconds that the next trial may take so that the leader can still be confirmed."""
        return self.left() - self.confirm_seconds(leader) - self.rung_seconds() - self.account_seconds()

    def time_for_a_trial(self, plan: Plan, leader: Trial | None) -> bool:
        """Whether trying this plan is likely to leave time to confirm the leader."""
        return self.allowed(leader) > self.expected_seconds(plan)

    def expected_seconds(self, plan: Plan) -> float:
        """What trying a plan is likely to take: as long as others with its compiler did, or what its techniques say."""
        seen = self.trial_seconds.get(compiler_of(plan))
        if seen:
            return statistics.median(seen[-RECENT:])
        return self.opening_seconds + RACE_SECONDS + sum(technique.build_seconds for technique in plan)

    def tried(self, plan: Plan, seconds: float) -> None:
        """Remember how long a trial took."""
        self.trial_seconds.setdefault(compiler_of(plan), []).append(seconds)

    def spare(self, trial: Trial | None) -> float:
        """How long a comparison may go on adding restarts when they disagree."""
        return max(0.0, self.left() - self.publish_seconds(trial) - self._candidate_seconds(trial))

    def time_to_confirm(self, trial: Trial | None) -> bool:
        """Whether one more confirmation is likely to end in time."""
        return self.left() > self.confirm_seconds(trial)
