"""In which order plans are tried: one of each compiler and precision, the ladder, then whatever looks best.

A strategy is a generator that does no input or output: it yields a plan and is sent the trial.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

from vivace.core.measurement import Outcome
from vivace.core.plan import Plan
from vivace.core.quality import Quality
from vivace.core.result import Trial, TrialStage
from vivace.core.technique import Effect, Stage, Technique
from vivace.search.rank import DEFINING, Ranking, compiler_of, numerics_of, without
from vivace.search.space import LADDER, Space
from vivace.search.verdict.finalists import gambles_of, is_safe

REFUSED = (Outcome.QUALITY_FAILED, Outcome.QUALITY_UNKNOWN, Outcome.WRONG_OUTPUT, Outcome.NONFINITE)
SLOW_SECONDS = 15.0
"""A plan that is said to take longer to build waits until one of each other kind was tried."""
RUINED = 0.5
"""What lost more than this share of its score is not won back by a short training on a few hundred samples."""
NEARLY = 0.75
"""The share of the leader's speed from which on one of its two precisions may in truth be as fast alone."""
MUCH_MORE = 1.1
"""How many times the leader's speed a plan must promise for its user to be told that there was no time for it; or that
of another for which there is time, to be tried in its place where there is none for both."""
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
        unmended = Plan(tuple(t for t in plan if not t.mends))
        return unmended == plan or numerics_of(unmended) in self.refused - self.ruined

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


def _defining(plan: Plan) -> frozenset[str]:
    """The names of the techniques that decide what runs and how long it takes to build, whatever their settings."""
    return frozenset(t.name() for t in plan if t.stage in DEFINING or t.mends)


def may_win(trial: Trial) -> bool:
    """Whether a trial is fit to be confirmed: it ran, was raced, and its quality was not refused."""
    return trial.outcome is Outcome.OK and trial.speedup is not None


def default_strategy(space: Space, memory: Memory) -> Strategy:
    """A plan of each compiler and precision, inference mode, what may beat the leader, the ladder, the rest.

    One whose answers were refused is followed at once by itself without its coarsest precision.

    What may beat the leader are first its own precisions one by one, then the plans whose answers were refused, mended,
    then untried ones.
    torch.compile is a rung too: it comes when its compiler does. The rest are all seeds and the leader's neighbours,
    best predicted first.
    """
    rungs = list(ladder(space, memory.ambient_threads))
    while (best := _first_of_its_kind(space, memory)) is not None:
        yield from _ask(memory, *_or_rung(best, rungs, memory))
        yield from _retreat(space, best, memory)
    yield from _climb(memory, rungs[:1])
    yield from _simplify(space, memory)
    yield from _mend(space, memory)
    while (best := _next(space, memory)) is not None and _is_promising(best, memory):
        yield from _ask(memory, best, TrialStage.SEARCH)
        yield from _mend_one(space, best, memory)
    yield from _climb(memory, rungs)
    while (best := _next(space, memory)) is not None:
        yield from _ask(memory, best, TrialStage.SEARCH)


def _climb(memory: Memory, rungs: Iterable[Plan]) -> Strategy:
    for plan in rungs:
        if plan not in memory.tried and memory.has_time_for(plan):
            yield from _ask(memory, plan, TrialStage.LADDER)


def _or_rung(plan: Plan, rungs: Iterable[Plan], memory: Memory) -> Request:
    """The rung of the plan's own compiler, if there is one that was not tried; else the plan."""
    rung = next((rung for rung in rungs if compiler_of(rung) == compiler_of(plan) != ""), None)
    return (plan, TrialStage.SEARCH) if rung is None or rung in memory.tried else (rung, TrialStage.LADDER)


def _first_of_its_kind(space: Space, memory: Memory) -> Plan | None:
    """The best predicted seed whose kind was not tried yet.

    What only rounds and what changes answers takes turns, so that a search whose fastest plans cannot be certified
    still has a safe one; what is slow to build comes after the others. What is slow to build, and another kind of a
    compiler that was tried, must promise to beat the leader. Where two may not fit into the time, the boldest begins.
    """
    kinds = {_kind(plan, memory) for plan in memory.tried if compiler_of(plan)}
    seen = {compiler for compiler, _, _ in kinds}
    friends = _friends(memory)
    seeds = (seed for seed in _seeds(space, memory, friends) if compiler_of(seed) and _kind(seed, memory) not in kinds)
    seeds = (seed for seed in seeds if _is_promising(seed, memory) or not (compiler_of(seed) in seen or _is_slow(seed)))
    turns = Counter(plan.effect is Effect.CHANGED for plan in memory.tried if compiler_of(plan))
    ready = memory.untried(seeds)
    chosen = min(ready, key=lambda seed: (_is_slow(seed), *_turn(seed, turns)), default=None)
    return chosen if chosen is None or turns else _first(chosen, ready, memory)


def _first(chosen: Plan, ready: Iterable[Plan], memory: Memory) -> Plan:
    """The most promising of those that build as quickly, if it promises clearly more than the chosen one and there may
    not be time for both. Once: where it is refused, what only rounds has its turn."""
    best = memory.ranking.ordered(seed for seed in ready if _is_slow(seed) <= _is_slow(chosen))[0]
    seconds = memory.ranking.predicted_seconds
    is_bold = seconds(best) * MUCH_MORE < seconds(chosen)
    return best if is_bold and not memory.has_time_for_first([chosen, best]) else chosen


def _simplify(space: Space, memory: Memory) -> Strategy:
    """The leader less each of its precisions, where it has several: a part may be faster than the whole.

    Not a part that is predicted to be much slower: predictions for another precision of the same compiler miss by more
    than what two precisions gain over the better one of them.
    """
    leader = memory.leader
    precisions = [t for t in leader.plan if t.stage is Stage.PRECISION] if leader else []
    if leader is None or len(precisions) < 2:
        return
    parts = [space.legal(without(leader.plan, t).techniques) for t in precisions]
    for part in memory.untried(part for part in parts if part is not None):
        if _is_promising(part, memory, NEARLY):
            yield from _ask(memory, part, TrialStage.SEARCH)


def _retreat(space: Space, plan: Plan, memory: Memory) -> Strategy:
    """A plan that was refused, or took too long to build, without its coarsest precision, where others are left that
    promise to beat the leader: what int8 loses, or has no time to calibrate, bfloat16 may hold, and a short search may
    end before bfloat16's own turn."""
    if plan not in memory.tried or memory.tried[plan].outcome not in (*REFUSED, Outcome.TIMEOUT):
        return
    cost = memory.ranking.cost
    parts = [space.legal(without(plan, t).techniques) for t in plan if t.stage is Stage.PRECISION]
    finer = [part for part in parts if part and part.cost(cost).precision != plan.cost(cost).precision]
    for part in memory.untried(finer)[:1]:
        if _is_promising(part, memory):
            yield from _ask(memory, part, TrialStage.SEARCH)


def _mend(space: Space, memory: Memory) -> Strategy:
    """Plans that were refused for their answers, with their quality won back or made milder. Those that promise no more
    than the leader are let be."""
    refused = [plan for plan, trial in memory.tried.items() if trial.outcome in REFUSED]
    for plan in memory.ranking.ordered(refused):
        if not _is_promising(plan, memory):
            return
        yield from _mend_one(space, plan, memory)


def _mend_one(space: Space, plan: Plan, memory: Memory) -> Strategy:
    """A plan that was refused, mended while that promises to beat the leader.

    What lost its quality by rounding is made milder first, which takes less time than training; what lost weights is
    trained first, which keeps all its gain. What pruning ruined no milder rounding mends.
    """
    if memory.tried[plan].outcome not in REFUSED:
        return
    is_pruned = any(technique.stage is Stage.SPARSITY for technique in plan)
    if is_pruned and numerics_of(plan) in memory.ruined:
        return
    for way in (_recover, _soften) if is_pruned else (_soften, _recover):
        if _is_promising(plan, memory):
            yield from way(space, plan, memory)


def _recover(space: Space, plan: Plan, memory: Memory) -> Strategy:
    """The plan with what may win its quality back, if its answers were refused."""
    for candidate in memory.untried(space.recovered(plan)):
        yield from _ask(memory, candidate, TrialStage.SEARCH)


def _soften(space: Space, plan: Plan, memory: Memory) -> Strategy:
    """The plan made milder until it passes, by halving the steps between the setting that was refused and none."""
    steps = space.milder(plan)
    low, high = -1, len(steps)
    while high - low > 1:
        middle = (low + high) // 2
        candidate = _with_more_precision(space, steps[middle], memory)
        if candidate not in memory.untried([candidate]):
            break
        trial = yield candidate, TrialStage.SEARCH
        memory.record(candidate, trial)
        low, high = (middle, high) if trial.outcome in REFUSED else (low, middle)


def _with_more_precision(space: Space, plan: Plan, memory: Memory) -> Plan:
    """The plan, or the plan with one more precision for what it keeps in float, whichever is predicted to be faster."""
    more = (space.legal([*plan.techniques, setting]) for setting in space.of_stage(Stage.PRECISION))
    return memory.ranking.ordered([plan, *(wider for wider in more if wider is not None)])[0]


def missed(space: Space, memory: Memory) -> list[Plan]:
    """Seeds for which there was no time and that promise clearly more than the leader, most promising first."""
    seeds = memory.open(_seeds(space, memory, _friends(memory)))
    return [seed for seed in seeds if _is_promising(seed, memory, MUCH_MORE)]


def single_strategy(plan: Plan, memory: Memory) -> Strategy:
    """One plan and no other: to reproduce a trial."""
    if plan not in memory.tried:
        yield from _ask(memory, plan, TrialStage.SEARCH)


def exhaustive_strategy(space: Space, memory: Memory) -> Strategy:
    """Every plan there is, most promising first; for benchmarks of the default strategy."""
    for plan in ladder(space, memory.ambient_threads):
        yield from _ask(memory, plan, TrialStage.LADDER)
    while plans := memory.untried(space.everything()):
        yield from _ask(memory, plans[0], TrialStage.SEARCH)


def ladder(space: Space, ambient_threads: int = 0) -> Iterator[Plan]:
    """The rungs that exist here: inference mode, alone and with channels-last or each count of threads; torch.compile.

    `ambient_threads` is the count that the original runs with anyway.
    """
    rungs = {name: [setting for setting in space.settings.get(name, ()) if _is_plain(setting)] for name in LADDER}
    base = rungs["inference-mode"][:1]
    singles = [setting for name in ("threads", "channels-last") for setting in rungs[name]]
    singles = [setting for setting in singles if setting.settings().get("count") != ambient_threads]
    wanted: list[list[Technique]] = [base, *([*base, setting] for setting in singles), rungs["inductor"][:1]]
    seen: set[Plan] = set()
    for techniques in wanted:
        plan = space.legal(techniques)
        if plan is not None and len(plan) and plan not in seen:
            seen.add(plan)
            yield plan


def is_rung(plan: Plan) -> bool:
    """Whether a plan uses nothing but what plain PyTorch offers to anyone."""
    return all(_is_plain(technique) for technique in plan)


def _is_plain(technique: Technique) -> bool:
    """One of the ladder's techniques, and torch.compile without freezing."""
    return technique.name() in LADDER and technique.settings().get("freeze") is not True


def _ask(memory: Memory, plan: Plan, stage: TrialStage) -> Strategy:
    trial = yield plan, stage
    memory.record(plan, trial)


def _friends(memory: Memory) -> list[Technique]:
    """The settings of the leader beside what defines it (precision, compiler, target): seeds start with them."""
    best = memory.leader
    return [t for t in best.plan if t.stage not in DEFINING] if best else []


def _next(space: Space, memory: Memory) -> Plan | None:
    """The best predicted of all seeds and of the leader's neighbours."""
    near = space.neighbours(memory.leader.plan if memory.leader else Plan())
    return next(iter(memory.untried([*_seeds(space, memory, _friends(memory)), *near])), None)


def _is_promising(plan: Plan, memory: Memory, share: float = 1.0) -> bool:
    """Whether it is predicted to be faster than the leader was, or than that share of its speed."""
    best = (memory.leader.likely_speedup if memory.leader else None) or 1.0
    return memory.ranking.predicted_seconds(plan) < memory.baseline_seconds / (share * best)


def _kind(plan: Plan, memory: Memory) -> tuple[str, str, bool]:
    """A compiler, the precision of its products, and whether answers are changed: one plan of each kind is tried
    before any second one."""
    return compiler_of(plan), plan.cost(memory.ranking.cost).precision, plan.effect is Effect.CHANGED


def _turn(plan: Plan, turns: Mapping[bool, int]) -> tuple[int, bool]:
    """How many of the plan's sort, which changes answers or not, had their turn; what only rounds begins."""
    changed = plan.effect is Effect.CHANGED
    return turns[changed], changed


def _is_slow(plan: Plan) -> bool:
    return plan.build_seconds > SLOW_SECONDS


def _seeds(space: Space, memory: Memory, friends: list[Technique]) -> Iterator[Plan]:
    """Each seed with the friends that are legal beside it; alone when that turned out not to apply."""
    for seed in space.seeds():
        plan = _befriend(space, seed, friends)
        trial = memory.tried.get(plan)
        yield seed if trial is not None and trial.outcome is Outcome.UNSUPPORTED else plan


def _befriend(space: Space, seed: Plan, friends: list[Technique]) -> Plan:
    """The seed with as many friends as are legal beside it."""
    plan = seed
    for friend in friends:
        plan = space.legal([*plan.techniques, friend]) or plan
    return plan
