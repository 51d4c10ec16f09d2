"""In which order plans are tried: one of each compiler and precision, the ladder, then whatever looks best.

A strategy is a generator that does no input or output: it yields a plan and is sent the trial.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from vivace.core.measurement import Outcome
from vivace.core.plan import Plan
from vivace.core.result import TrialStage
from vivace.core.technique import Effect, Stage, Technique
from vivace.search.order.memory import Memory, Request, Strategy, ask, is_promising
from vivace.search.order.mending import insure, mend, mend_one, retreat
from vivace.search.rank import DEFINING, compiler_of, without
from vivace.search.space import LADDER, Space

SLOW_SECONDS = 15.0
"""A plan that is said to take longer to build waits until one of each other kind was tried."""
NEARLY = 0.75
"""The share of the leader's speed from which on one of its two precisions may in truth be as fast alone."""
MUCH_MORE = 1.1
"""How many times the leader's speed a plan must promise for its user to be told that there was no time for it; or that
of another for which there is time, to be tried in its place where there is none for both."""


def default_strategy(space: Space, memory: Memory) -> Strategy:
    """A plan of each compiler and precision, inference mode, what may beat the leader, the ladder, the rest.

    One whose answers were refused is followed at once by itself without its coarsest precision.

    What may beat the leader are first its own precisions one by one, then the plans whose answers were refused, mended,
    then untried ones. A leader that may yet be refused is followed by a milder form of itself.
    torch.compile is a rung too: it comes when its compiler does. The rest are all seeds and the leader's neighbours,
    best predicted first.
    """
    rungs = list(ladder(space, memory.ambient_threads))
    while (best := _first_of_its_kind(space, memory)) is not None:
        yield from ask(memory, *_or_rung(best, rungs, memory))
        yield from retreat(space, best, memory)
    yield from _climb(memory, rungs[:1])
    yield from _simplify(space, memory)
    yield from mend(space, memory)
    yield from insure(space, memory)
    while (best := _next(space, memory)) is not None and is_promising(best, memory):
        yield from ask(memory, best, TrialStage.SEARCH)
        yield from mend_one(space, best, memory)
        yield from insure(space, memory)
    yield from _climb(memory, rungs)
    while (best := _next(space, memory)) is not None:
        yield from ask(memory, best, TrialStage.SEARCH)


def _climb(memory: Memory, rungs: Iterable[Plan]) -> Strategy:
    for plan in rungs:
        if plan not in memory.tried and memory.has_time_for(plan):
            yield from ask(memory, plan, TrialStage.LADDER)


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
    seeds = (seed for seed in seeds if is_promising(seed, memory) or not (compiler_of(seed) in seen or _is_slow(seed)))
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
        if is_promising(part, memory, NEARLY):
            yield from ask(memory, part, TrialStage.SEARCH)


def missed(space: Space, memory: Memory) -> list[Plan]:
    """Seeds for which there was no time and that promise clearly more than the leader, most promising first."""
    seeds = memory.open(_seeds(space, memory, _friends(memory)))
    return [seed for seed in seeds if is_promising(seed, memory, MUCH_MORE)]


def single_strategy(plan: Plan, memory: Memory) -> Strategy:
    """One plan and no other: to reproduce a trial."""
    if plan not in memory.tried:
        yield from ask(memory, plan, TrialStage.SEARCH)


def exhaustive_strategy(space: Space, memory: Memory) -> Strategy:
    """Every plan there is, most promising first; for benchmarks of the default strategy."""
    for plan in ladder(space, memory.ambient_threads):
        yield from ask(memory, plan, TrialStage.LADDER)
    while plans := memory.untried(space.everything()):
        yield from ask(memory, plans[0], TrialStage.SEARCH)


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


def _friends(memory: Memory) -> list[Technique]:
    """The settings of the leader beside what defines it (precision, compiler, target): seeds start with them."""
    best = memory.leader
    return [t for t in best.plan if t.stage not in DEFINING] if best else []


def _next(space: Space, memory: Memory) -> Plan | None:
    """The best predicted of all seeds and of the leader's neighbours."""
    near = space.neighbours(memory.leader.plan if memory.leader else Plan())
    return next(iter(memory.untried([*_seeds(space, memory, _friends(memory)), *near])), None)


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
