"""Before delivery: the winner against itself less each technique that the search may have added by luck alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Protocol

from vivace.core.errors import EnvironmentFault, UsageError, WorkerFailure
from vivace.core.facts import Fact
from vivace.core.measurement import Comparison, Interval
from vivace.core.plan import Plan
from vivace.core.quality import QualityVerdict
from vivace.core.result import Trial
from vivace.core.technique import Effect, Technique
from vivace.search.order.memory import may_win
from vivace.search.rank import DEFINING, numerics_of, without

MOST_ASKED = 3
"""Techniques of one winner that are doubted, those that gained least in the race first."""
CLEAR_GAIN = 1.25
"""Of a technique by the race: no luck of choosing the best of some dozen plans comes near it on a quiet machine. On one
that differs from itself by more, twice that."""
LEAST_WORTH = 0.02
"""What a technique must gain by the measured value to stay where its gain is not held: a plan is not made slower by as
much only because the machine was too busy to be sure. So close plans count as equally fast in `confirm.best_of`."""
NO_TIME = "there was no time left to pair them"


@dataclasses.dataclass(frozen=True)
class Doubt:
    """A technique of a plan, the plan without it, and what it gained by the race; None where that was not raced."""

    technique: Technique
    rest: Plan
    gain: float | None


class Room(Protocol):
    """Where doubts are settled; the conclusion of a search is one."""

    def try_rest(self, rest: Plan, winner: Trial) -> Trial | None:
        """A plan that was not tried yet, tried now; None where there is no time for that and for all that follows."""

    def pair(self, rest: Trial, winner: Trial) -> Comparison | None:
        """The plan without a technique (baseline) against the winner in fresh pairs of processes; None without time."""

    def confirm(self, rest: Trial) -> Trial:
        """The plan confirmed as a finalist is, unless it was."""

    def beats(self, rest: Trial) -> bool:
        """Whether a confirmed plan may be delivered."""


@dataclasses.dataclass
class Simplification:
    """Takes techniques out of a confirmed winner that bring nothing to be seen over the plan without them.

    The race chose the fastest of many plans, so that a technique which brings nothing is in the winner as often as not,
    and confirming a winner against the original does not show it. So the winner is timed against itself less one
    technique, interleaved, in pairs of processes of their own. The technique stays where the 95% interval of that ratio
    is above 1, and where its value is clearly above 1 though the interval is too wide to hold it, which is then said.
    Each is asked once, by a comparison that ends by its width or by the time and never by what it shows, and no figure
    of the race enters the interval. Where there is no time to pair two that were both confirmed, the ends of their
    intervals divided crosswise stand for it, which is rather too wide than too narrow.

    What is simpler is delivered only if it is confirmed itself. Verdicts on the confirm part are a fixed sequence: a
    plan that changes answers is judged only after the longer one was HELD, and the first that is not HELD ends it, so
    that the sequence errs no more often than its first verdict.

    `facts` are those that plans start from, `refused` the numerics whose answers were refused.
    """

    room: Room
    facts: frozenset[Fact]
    tried: Mapping[Plan, Trial]
    refused: Collection[tuple[str, ...]]
    noise_floor: float
    told: list[str] = dataclasses.field(default_factory=list)

    def of(self, winner: Trial) -> Trial:
        """The winner, or what remains of it; `told` has a sentence on each technique that was doubted."""
        asked: set[Technique] = set()
        for _ in range(MOST_ASKED):
            doubt = next((one for one in self.doubts(winner.plan) if one.technique not in asked), None)
            if doubt is None:
                break
            asked.add(doubt.technique)
            simpler = self._without(doubt, winner)
            if simpler is None:
                continue
            if self.room.beats(simpler):
                winner = simpler
            elif _is_refused(simpler):
                break
        return winner

    def doubts(self, plan: Plan) -> list[Doubt]:
        """Techniques that may bring nothing, the smallest gain by the race first, those last without which nothing was
        raced: not the plan's only one, nor what wins quality back, nor what the race saw to gain much. A precision, a
        compiler or a target only where the plan without it was tried: else it is what the plan began with."""
        found = []
        for technique in plan:
            rest = without(plan, technique)
            if technique.mends or not len(rest) or rest.illegal(self.facts) is not None:
                continue
            trial = self.tried.get(rest)
            if trial is None and technique.stage not in DEFINING and numerics_of(rest) not in self.refused:
                found.append(Doubt(technique, rest, None))
            elif trial is not None and may_win(trial):
                doubt = Doubt(technique, rest, self._gain(plan, rest))
                found += [] if self._is_clear(doubt) else [doubt]
        return sorted(found, key=lambda doubt: float("inf") if doubt.gain is None else doubt.gain)

    def _gain(self, plan: Plan, rest: Plan) -> float:
        both = (self.tried[plan].likely_speedup, self.tried[rest].likely_speedup)
        return (both[0] or 0.0) / (both[1] or 1.0)

    def _is_clear(self, doubt: Doubt) -> bool:
        return doubt.gain is not None and doubt.gain > max(CLEAR_GAIN, (1 + self.noise_floor) ** 2)

    def _without(self, doubt: Doubt, winner: Trial) -> Trial | None:
        """The simpler plan, confirmed, where the technique brings nothing to be seen; None where it stays."""
        rest = self.tried.get(doubt.rest) or self.room.try_rest(doubt.rest, winner)
        if rest is not None and not self._is_open(doubt, winner):
            return None
        gain, how = (None, NO_TIME) if rest is None else self._measured(rest, winner)
        if rest is None or gain is None:
            self.told.append(f"whether {doubt.technique} brings anything beside {doubt.rest} is not known: {how}")
            return None
        worth = f"the plan with it is {gain} times as fast (MEASURED, {how})"
        if gain.low > 1.0:
            self.told.append(f"{doubt.technique} stays beside {doubt.rest}: {worth}")
            return None
        if gain.value > 1.0 + LEAST_WORTH:
            self.told.append(f"{doubt.technique} stays beside {doubt.rest}, undecided: {worth}")
            return None
        simpler = self.room.confirm(rest)
        if self.room.beats(simpler):
            self.told.append(f"{doubt.technique} is left out beside {doubt.rest}: {worth}, a gain that is not held")
        else:
            why = simpler.reason or "it was not confirmed to be faster than the original"
            self.told.append(f"{doubt.technique} stays though its gain is not held ({worth}): without it, {why}")
        return simpler

    def _is_open(self, doubt: Doubt, winner: Trial) -> bool:
        """Whether the race, where the plan without the technique has now been, leaves the doubt."""
        raced = dataclasses.replace(doubt, gain=self._gain(winner.plan, doubt.rest))
        return may_win(self.tried[doubt.rest]) and not self._is_clear(raced)

    def _measured(self, rest: Trial, winner: Trial) -> tuple[Interval | None, str]:
        """The winner's speed over the rest's, and how that is known or why it is not."""
        try:
            found = self.room.pair(rest, winner)
        except (WorkerFailure, UsageError, EnvironmentFault, OSError) as failure:
            return None, str(failure)
        if found is not None:
            return found.speedup, f"{found.restarts} pairs of processes"
        ours, theirs = winner.confirmed, rest.confirmed
        if ours is None or theirs is None:
            return None, NO_TIME
        a, b = ours.speedup, theirs.speedup
        return Interval(a.value / b.value, a.low / b.high, a.high / b.low), "each against the original"


def _is_refused(trial: Trial) -> bool:
    """Whether a verdict on the data ends the sequence: that of a plan that changes answers, other than HELD."""
    if trial.plan.effect is not Effect.CHANGED:
        return False
    return trial.quality is None or trial.quality.verdict is not QualityVerdict.HELD
