"""What a strategy has seen so far, and what there is left to try that promises more."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence

from vivace.core.measurement import Outcome
from vivace.core.plan import Plan
from vivace.core.quality import Quality
from vivace.core.result import Trial, TrialStage
from vivace.core.technique import Effect
from vivace.search.rank import DEFINING, Ranking, numerics_of, without
from vivace.search.verdict.finalists import gambles_of, is_safe

REFUSED = (Outcome.QUALITY_FAILED, Outcome.QUALITY_UNKNOWN, Outcome.WRONG_OUTPUT, Outcome.NONFINITE)
RUINED = 0.5
"""What lost more than this share of its score is not won back by a short training on a few hundred samples."""
Request = tuple[Plan, TrialStage]
Strategy = Generator[Request, Trial, None]


class Memory:
    """What the strategy has seen: every plan tried, the leader, the techniques that do nothing here, and those of which
    one setting did not apply.

    `has_time_for` says whether there is time for a plan; one without is not asked for. `has_time_for_first` says
    whether there surely is for several, before any was tried.
    """

    def __init__(
        self, ranking: Ranking, baseline_seconds: float, merit: Callable[[Trial], float], ambient_threads: int = 0
    ) -> None:
        self.ranking = ranking
        self.ambient_threads = ambient_threads
        self._merit = merit
        self.baseline_seconds = baseline_seconds
        self.tried: dict[Plan, Trial] = {}
        self.useless: set[str] = set()
        self.doubtful: set[str] = set()
        self.refused: set[tuple[str, ...]] = set()
        self.ruined: set[tuple[str, ...]] = set()
        self.too_slow: set[frozenset[str]] = set()
        self.has_time_for: Callable[[Plan], bool] = lambda plan: True
        self.has_time_for_first: Callable[[Sequence[Plan]], bool] = lambda plans: True

    def record(self, plan: Plan, trial: Trial) -> None:
        """Take in one trial."""
        self.tried[plan] = trial
        if trial.likely_speedup is not None:
            self.ranking.learn(plan, self.baseline_seconds / trial.likely_speedup)
        if trial.outcome is Outcome.UNSUPPORTED:
            culprits = {t.name() for t in plan if self._works(without(plan, t))}
            (self.useless if len(plan) == 1 else self.doubtful).update(culprits)
        if trial.outcome in REFUSED and plan.effect is Effect.CHANGED:
            self.refused.add(numerics_of(plan))
            if _is_ruined(trial.quality):
                self.ruined.add(numerics_of(plan))
        if trial.outcome is Outcome.TIMEOUT:
            self.too_slow.add(_defining(plan))

    def _works(self, plan: Plan) -> bool:
        """Whether a plan could be built; the original can."""
        return not len(plan) or (plan in self.tried and self.tried[plan].outcome is not Outcome.UNSUPPORTED)

    def _has_cause(self, plan: Plan) -> bool:
        """Whether what mends answers in a plan was needed: its answers without that were refused, and not ruined."""
        bare = unmended(plan)
        return bare == plan or numerics_of(bare) in self.refused - self.ruined

    @property
    def leader(self) -> Trial | None:
        """The best trial that may be delivered."""
        return max(filter(may_win, self.tried.values()), key=self._merit, default=None)

    @property
    def gambles(self) -> list[Trial]:
        """Trials fit to be delivered that may yet be refused, before the best one that is likely to be certified."""
        return gambles_of(self._fit())

    @property
    def ends(self) -> tuple[Trial | None, list[Trial], Trial | None]:
        """What the time for the end depends on: the leader, the gambles, and the best trial that is likely to be
        certified, which is confirmed where the gambles are refused."""
        return self.leader, self.gambles, next(filter(is_safe, self._fit()), None)

    def _fit(self) -> list[Trial]:
        return sorted(filter(may_win, self.tried.values()), key=self._merit, reverse=True)

    def untried(self, plans: Iterable[Plan]) -> list[Plan]:
        """Those that are `open` and that there is time for, in the same order."""
        return [plan for plan in self.open(plans) if self.has_time_for(plan)]

    def open(self, plans: Iterable[Plan]) -> list[Plan]:
        """Those not tried yet, most promising first; last those with a technique that did not apply in another setting.

        Not those with techniques known to do nothing, nor those whose precision and compiler already gave answers that
        were refused (threads or layouts would not mend them) or ran out of time, nor those that would mend what was
        not refused.
        """
        fresh = {
            plan
            for plan in plans
            if plan not in self.tried
            and not self.useless & {t.name() for t in plan}
            and numerics_of(plan) not in self.refused
            and self._has_cause(plan)
            and _defining(plan) not in self.too_slow
        }
        return sorted(self.ranking.ordered(fresh), key=self._is_doubtful)

    def _is_doubtful(self, plan: Plan) -> bool:
        return any(t.name() in self.doubtful for t in plan)


def _is_ruined(quality: Quality | None) -> bool:
    """Whether more is lost than a short training wins back."""
    if quality is None or quality.drop is None or quality.baseline is None:
        return False
    return quality.drop > RUINED * abs(quality.baseline)


def unmended(plan: Plan) -> Plan:
    """A plan without what mends its answers."""
    return Plan(tuple(technique for technique in plan if not technique.mends))


def _defining(plan: Plan) -> frozenset[str]:
    """The names of the techniques that decide what runs and how long it takes to build, whatever their settings."""
    return frozenset(t.name() for t in plan if t.stage in DEFINING or t.mends)


def may_win(trial: Trial) -> bool:
    """Whether a trial is fit to be confirmed: it ran, was raced, and its quality was not refused."""
    return trial.outcome is Outcome.OK and trial.speedup is not None


def is_promising(plan: Plan, memory: Memory, share: float = 1.0) -> bool:
    """Whether it is predicted to be faster than the leader was, or than that share of its speed."""
    best = (memory.leader.likely_speedup if memory.leader else None) or 1.0
    return memory.ranking.predicted_seconds(plan) < memory.baseline_seconds / (share * best)


def ask(memory: Memory, plan: Plan, stage: TrialStage) -> Strategy:
    trial = yield plan, stage
    memory.record(plan, trial)
