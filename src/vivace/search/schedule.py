"""How the user's time is spent: what is left, what trials and confirmations are likely to take, when to stop."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence

from vivace.core.measurement import Outcome
from vivace.core.plan import Plan
from vivace.core.result import Trial, TrialStage
from vivace.measure.arm import DISTINCT
from vivace.measure.clock import Clock, SystemClock
from vivace.measure.paired import StopRule, calls_per_block
from vivace.measure.stats import FEWEST_FOR_INTERVAL
from vivace.search.calls.inputs import TIMING_CALLS
from vivace.search.rank import compiler_of
from vivace.search.verdict.finalists import is_safe

SELECT_SHARE, CONFIRM_SHARE = 0.03, 0.10
"""Of the user's time that the original may spend on answering each part: candidates answer the first one by one."""
FIRST_GUESS_SECONDS = 4.0
"""How long opening the original takes, before it was seen."""
RACE_SECONDS, JUDGING_SECONDS = 5.0, 1.0
"""What judging and racing a candidate takes at the most, beside opening it, before it was seen; and judging alone,
where calls are short."""
RACE_SHARE, LEAST_RACE_SECONDS, MOST_RACE_SECONDS = 1 / 50, 2.0, 10.0
"""Of the user's time that one race may take, within these: a race chooses finalists and makes no claim."""
FORKED_SECONDS = 0.5
"""What a worker that is forked takes to be ready."""
PAIR_OPENINGS = 1.3
"""Two programs that open side by side in interpreters of their own take this many times as long as the original alone:
1.31 of a ResNet, 1.2 to 1.45 of MiniLM, whose packages take seconds to import, on two cores."""
SPARE = 1.2
"""A confirmation is planned with a fifth more than it is likely to take."""
MORE_WHEN_DISTURBED, CLEARLY_FASTER, TRIED_BEFORE_MORE = 2, 2.0, 4
"""Restarts that time is kept for on a machine that is disturbed: the interval over three is very wide. Not before so
many plans were tried, nor for what is so many times faster that a wide interval decides it too: that time is better
spent on other plans."""
WARM_SECONDS = 2.0
"""What an arm that will be timed is called for before, at the most; one that only answers is not."""
MOST_GAMBLES = 3
"""Trials that may be refused, for which time to judge them is kept before the one that is confirmed."""
RECENT = 5
TRIAL_SHARE = 1 / 4
"""Of the user's time that one trial may take at the most."""
LEAST_TRIAL_SECONDS = 20.0
SHORT_SECONDS = 180.0
"""Under this, all of the time goes to the plans themselves."""
ATTRIBUTION_SHARE, ATTRIBUTION_SECONDS = 1 / 10, 120.0
"""Of a longer time, what is kept to measure the winner technique by technique, and the most of it."""
EXPLAIN_SECONDS = 6.0
"""Three workers after the verdict: one lists what was fused in the winner and profiles it, one measures the machine's
ceilings, one profiles the original. Listing and measuring take so long."""
PROFILE_SECONDS, PROFILE_CALLS = 3.0, 6
"""What profiling a program takes beside loading it: a second of calls and reading what was recorded; of slow calls so
many. Of all time, PROFILE_SHARE is kept for slow calls at the most."""
PROFILE_SHARE = 1 / 20
EMPTY_CALL_SECONDS = 4.0
"""What timing a program beside an empty one takes, beside opening both."""
CACHED_LOAD_SECONDS = 5.0
"""A program that compiles when it is loaded finds its own compiler's cache the second time."""


@dataclasses.dataclass
class Schedule:
    """`seconds` are all that the user gave, counted from the clock's reading `started`.

    `opening_seconds` is what opening the original's arm takes: an interpreter, the model, the warm-up, which is
    `warmed_seconds` of it; in a race, whose arms are forked, it takes `race_opening_seconds` (None: as long).
    `loading_seconds` of it go by once an interpreter has PyTorch and before the first call. `is_disturbed` says that
    the original differed much from itself, so that restarts will have to be added. `race_seconds` is what judging and
    racing a candidate takes. `trial_seconds` are those of the trials so far, by compiler and by whether quality was won
    back. `call_seconds` is what a call of the original takes, and `is_tiny` says that it is so short that the overhead
    of calling will be asked for. `deliverable` are the trials so far that were confirmed, one of which will be
    delivered. `pairs_ahead` says of how many pairs of a confirmation the interpreters have started, and
    `is_check_ahead` whether that of the check has.
    """

    seconds: float
    started: float
    restarts: int
    clock: Clock = dataclasses.field(default_factory=SystemClock)
    opening_seconds: float = FIRST_GUESS_SECONDS
    race_opening_seconds: float | None = None
    warmed_seconds: float = WARM_SECONDS
    loading_seconds: float = 0.0
    is_disturbed: bool = False
    is_tiny: bool = False
    call_seconds: float = 0.0
    race_seconds: float = RACE_SECONDS
    trial_seconds: dict[tuple[str, bool], list[float]] = dataclasses.field(default_factory=dict)
    deliverable: list[Trial] = dataclasses.field(default_factory=list)
    pairs_ahead: Callable[[], int] = lambda: 0
    is_check_ahead: Callable[[], bool] = lambda: False

    def left(self) -> float:
        """Seconds that are left; negative when the time is over."""
        return self.seconds - (self.clock.now() - self.started)

    def rule(self) -> StopRule:
        """How long the blocks of one confirmation may take: a twelfth of the time, between 3 and 30 seconds; a
        twentieth where time is short, for what is uncertain then is how much processes differ, not how much blocks do.
        """
        share = 1 / 20 if self.seconds < SHORT_SECONDS else 1 / 12
        longest = min(30.0, max(3.0, share * self.seconds))
        return StopRule(half_width=0.01, min_blocks=12, max_blocks=60, max_seconds=longest, warm_seconds=WARM_SECONDS)

    def short_rule(self) -> StopRule:
        """The rule of one configuration of an attribution: looser; a sixtieth of the time, between 2 and 5 seconds."""
        longest = min(5.0, max(2.0, self.seconds / 60))
        return StopRule(half_width=0.02, min_blocks=10, max_blocks=30, max_seconds=longest, warm_seconds=WARM_SECONDS)

    def confirm_seconds(self, trial: Trial | None) -> float:
        """What confirming a trial is likely to take: it is judged, and each restart opens both arms side by side."""
        is_near = trial is not None and trial.rank_speedup < CLEARLY_FASTER
        were_tried = sum(map(len, self.trial_seconds.values())) >= TRIED_BEFORE_MORE
        more = MORE_WHEN_DISTURBED if self.is_disturbed and is_near and were_tried else 0
        restarts = self.restarts + more
        ahead = min(restarts, self.pairs_ahead())
        pairs = ahead * self._pair_seconds(trial, True) + (restarts - ahead) * self._pair_seconds(trial, False)
        # the first one's programs open one by one
        first = min(self._loading(trial), self._loading_of_original(ahead > 0))
        first += 0.0 if ahead else self._interpreter_seconds
        measured = pairs + first + self._candidate_seconds(trial) + self.rule().max_seconds
        return SPARE * measured + self.publish_seconds(trial)

    def keeping_seconds(self) -> float:
        """What measuring the original as an artifact, in one pair of processes, and publishing it is likely to take."""
        pair = self._pair_seconds(None, self.pairs_ahead() > 0)
        return SPARE * (pair + self.rule().max_seconds) + self.publish_seconds(None)

    def _pair_seconds(self, trial: Trial | None, is_ahead: bool) -> float:
        """What opening a pair side by side takes, whose interpreters have started ahead or start then."""
        opening = self._first_opening if is_ahead else self.opening_seconds
        return PAIR_OPENINGS * opening + max(0.0, self._loading(trial) - self._loading_of_original(is_ahead))

    def _loading_of_original(self, is_ahead: bool) -> float:
        """Seconds that go by before the original's first call, once its interpreter has started."""
        return max(0.0, self._first_opening - self.warmed_seconds) if is_ahead else self.loading_seconds

    @property
    def _first_opening(self) -> float:
        """What opening the original's arm takes where its interpreter is there already."""
        return self.opening_seconds if self.race_opening_seconds is None else self.race_opening_seconds

    def judge_seconds(self, trial: Trial) -> float:
        """What judging a finalist is likely to take: it is recorded, opened, and answers the confirm part."""
        answers = CONFIRM_SHARE * self.seconds / max(1.0, trial.rank_speedup)
        return SPARE * (2 * self._candidate_seconds(trial) + answers)

    def time_to_judge_first(self, risky: Trial, safe: Trial) -> bool:
        """Whether a finalist may be judged, and another still be confirmed if the first one fails."""
        return self.left() > self.judge_seconds(risky) + self.confirm_seconds(safe)

    def ending_seconds(self, leader: Trial | None, gambles: Sequence[Trial] = (), safe: Trial | None = None) -> float:
        """What confirming the leader is likely to take, or `safe` where that takes longer, after judging those that may
        fail before it.

        `gambles` are the trials that may be refused, most promising first; of them so many are judged as there are
        finalists. The leader alone where none are given and it may be refused. `safe` is confirmed where they are.
        """
        alone = [] if leader is None or is_safe(leader) else [leader]
        confirmed = max(map(self.confirm_seconds, (leader, safe or leader)))
        return confirmed + sum(map(self.judge_seconds, (gambles or alone)[:MOST_GAMBLES]))

    def rung_seconds(self) -> float:
        """What is kept for measuring the best plain rung beside the winner; nothing when time is short."""
        return 0.0 if self.seconds < SHORT_SECONDS else self._rung_seconds(None)

    def time_for_the_rung(self, rung: Trial) -> bool:
        """Whether it can still be measured before the artifact is due."""
        return self.left() - self.publish_seconds(None) > self._rung_seconds(rung)

    def pairing_seconds(self, winner: Trial) -> float:
        """What timing a winner beside itself less a technique is likely to take."""
        pair = PAIR_OPENINGS * self.opening_seconds + self._loading(winner)
        return SPARE * (self.restarts * pair + self.rule().max_seconds)

    def time_to_pair(self, rest: Trial, winner: Trial, before: float = 0.0) -> bool:
        """Whether that can be done `before` seconds from now, and the plan without the technique still be confirmed."""
        after = self.confirm_seconds(rest) if rest.confirmed is None else self.publish_seconds(winner)
        return self.left() - before > self.pairing_seconds(winner) + after

    def explain_seconds(self) -> float:
        """What is kept for listing what was fused, for profiling, for measuring ceilings and, of a tiny model, for
        timing an empty call; nothing when time is short."""
        if self.seconds < SHORT_SECONDS:
            return 0.0
        profiled = min(2 * PROFILE_CALLS * self.call_seconds, PROFILE_SHARE * self.seconds) + 2 * PROFILE_SECONDS
        return 2 * self.opening_seconds + profiled + self.measuring_seconds()

    def measuring_seconds(self) -> float:
        """What measuring ceilings and, of a tiny model, timing an empty call are likely to take."""
        empty = self.empty_call_seconds(None) if self.is_tiny else 0.0
        return self.opening_seconds + EXPLAIN_SECONDS + empty

    def profile_seconds(self, call_seconds: float, loading: float = 0.0) -> float:
        """What profiling one program, in a worker that has started, is likely to take: it is loaded in `loading`
        seconds, for a compiler whose kernels tell their time compiles anew."""
        return loading + PROFILE_SECONDS + PROFILE_CALLS * call_seconds

    def empty_call_seconds(self, trial: Trial | None) -> float:
        """What timing a delivered program beside an empty one is likely to take: one pair of processes."""
        return PAIR_OPENINGS * self.opening_seconds + 2 * self._loading(trial) + EMPTY_CALL_SECONDS

    def _rung_seconds(self, rung: Trial | None) -> float:
        pair = PAIR_OPENINGS * self.opening_seconds + self._loading(rung)
        return SPARE * (self.restarts * pair + self.rule().max_seconds / 2)

    def kept_seconds(self) -> float:
        """What is kept for what follows the confirmation: the best plain rung, attribution, fusions."""
        return self.rung_seconds() + self.attribution_seconds() + self.explain_seconds()

    def attribution_seconds(self) -> float:
        """What is kept for measuring the winner technique by technique; nothing when time is short."""
        share = min(ATTRIBUTION_SECONDS, ATTRIBUTION_SHARE * self.seconds)
        return 0.0 if self.seconds < SHORT_SECONDS else share

    def configuration_seconds(self, plan: Plan, winner: Trial, is_built: bool) -> float:
        """What one configuration of the winner's attribution is likely to take: one pair of processes, and as long as a
        trial before it where it has yet to be built and judged."""
        pair = PAIR_OPENINGS * self.opening_seconds + self._loading(winner)
        blocks = max(self.short_rule().max_seconds, FEWEST_FOR_INTERVAL * _block_seconds(winner))
        return SPARE * (pair + blocks + (0.0 if is_built else self.expected_seconds(plan)))

    def time_for_a_configuration(self, plan: Plan, winner: Trial, is_built: bool) -> bool:
        """Whether it can still be measured before the artifact is due."""
        left = self.left() - self.publish_seconds(winner) - self.explain_seconds()
        return left > self.configuration_seconds(plan, winner, is_built)

    def allowed_for_a_phase(self, winner: Trial) -> float:
        """Seconds that one phase of a configuration may take: half of what is left before the artifact is due,
        since the one that hangs may not be the first."""
        return (self.left() - self.publish_seconds(winner)) / 2

    def publish_seconds(self, trial: Trial | None) -> float:
        """What recording an artifact, and checking it in an interpreter of its own, is likely to take: this trial's, or
        that of any which may be delivered instead."""
        started = 0.0 if self.is_check_ahead() else self._interpreter_seconds
        return 2 * max(map(self._candidate_seconds, [trial, *self.deliverable])) + started

    def _candidate_seconds(self, trial: Trial | None) -> float:
        """What opening a candidate takes where nothing is timed: in a fork of an interpreter, where there are any."""
        is_forked = self._interpreter_seconds > 0
        started = FORKED_SECONDS if is_forked else max(0.0, self.opening_seconds - self.warmed_seconds)
        return started + self._loading(trial)

    @property
    def _interpreter_seconds(self) -> float:
        """What an interpreter takes longer to have PyTorch than a fork; nothing where nothing is forked."""
        if self.race_opening_seconds is None:
            return 0.0
        return max(
            0.0, self.opening_seconds - max(self.race_opening_seconds, self.loading_seconds + self.warmed_seconds)
        )

    def _loading(self, trial: Trial | None) -> float:
        return min(trial.load_seconds if trial else 0.0, CACHED_LOAD_SECONDS)

    def allowed(self, leader: Trial | None, gambles: Sequence[Trial] = (), safe: Trial | None = None) -> float:
        """Seconds that the next trial may take: the leader can still be confirmed, and others can be tried. Where there
        is none, a trial is not cut short for a confirmation that has nothing to show, but for what keeping the original
        takes; a first one, such as the only plan that was asked for, not for that."""
        left = self.left() - self.ending_seconds(leader, gambles, safe) - self.kept_seconds()
        if leader is None:
            keeping = self.keeping_seconds() if self.trial_seconds else 0.0
            left = max(left, min(self.left() - keeping, LEAST_TRIAL_SECONDS))
        return min(left, max(LEAST_TRIAL_SECONDS, TRIAL_SHARE * self.seconds))

    def time_for_a_trial(
        self, plan: Plan, leader: Trial | None, gambles: Sequence[Trial] = (), safe: Trial | None = None
    ) -> bool:
        """Whether trying this plan is likely to leave time to confirm the leader, or another where it is refused."""
        left = self.left() - self.ending_seconds(leader, gambles, safe) - self.kept_seconds()
        return left > self.expected_seconds(plan)

    def time_for_first_trials(self, plans: Sequence[Plan]) -> bool:
        """Whether all of these, of which nothing was seen yet, are surely tried in time to confirm one of them: with a
        fifth more than trials are likely to take, and half of what building and loading does for loading."""
        slowest = max(plans, key=lambda plan: plan.build_seconds)
        loaded = Trial(slowest, Outcome.OK, TrialStage.SEARCH, load_seconds=slowest.build_seconds / 2)
        trials = SPARE * sum(map(self.expected_seconds, plans))
        return self.left() - self.confirm_seconds(loaded) - self.kept_seconds() > trials

    def expected_seconds(self, plan: Plan) -> float:
        """What trying a plan is likely to take: as long as others of its kind did, or what its techniques say."""
        seen = self.trial_seconds.get(_kind(plan))
        if seen:
            return statistics.median(seen[-RECENT:])
        return self._first_opening + self._guessed_race_seconds + plan.build_seconds

    def tried(self, plan: Plan, seconds: float, was_raced: bool = True) -> None:
        """Remember how long a trial took; one that was refused before its race, with that, for the next may have it."""
        race = 0.0 if was_raced else self._guessed_race_seconds
        self.trial_seconds.setdefault(_kind(plan), []).append(seconds + race)

    @property
    def _guessed_race_seconds(self) -> float:
        return min(self.race_seconds, longest_race(self.seconds) + JUDGING_SECONDS)

    def spare(self, trial: Trial | None) -> float:
        """How long a comparison may go on adding restarts when they disagree."""
        after = self.publish_seconds(trial) + self._candidate_seconds(trial) + self.attribution_seconds()
        return max(0.0, self.left() - after - self.explain_seconds())

    def time_to_confirm(self, trial: Trial | None) -> bool:
        """Whether one more confirmation is likely to end in time."""
        return self.left() > self.confirm_seconds(trial)


def longest_race(seconds: float) -> float:
    """How long the blocks of one race may take in a search of so many seconds."""
    return min(MOST_RACE_SECONDS, max(LEAST_RACE_SECONDS, RACE_SHARE * seconds))


def _kind(plan: Plan) -> tuple[str, bool]:
    """What decides how long a plan takes to build: its compiler, and whether weights are trained."""
    return compiler_of(plan), any(technique.mends for technique in plan)


def _block_seconds(winner: Trial) -> float:
    """The most that one ABBA block of the original and a plan as fast as the winner is likely to take."""
    if winner.confirmed is None:
        return 0.0
    times, least = winner.confirmed, StopRule().block_seconds
    base, fast = times.baseline.median_seconds, times.candidate.median_seconds
    fewest = TIMING_CALLS // 2 if times.baseline.shape_seconds else 1  # a block walks every input of a mix
    calls = max(fewest, min(DISTINCT, calls_per_block(least, base, fast)))
    return 4 * max(least, calls * max(base, fast))
