"""Plans whose answers were refused, or may yet be: with their quality won back, or made milder."""

from __future__ import annotations

from collections.abc import Iterator

from vivace.core.measurement import Outcome
from vivace.core.plan import Plan
from vivace.core.result import TrialStage
from vivace.core.technique import Effect, Stage
from vivace.search.order.memory import REFUSED, Memory, Strategy, ask, is_promising, unmended
from vivace.search.rank import numerics_of, without
from vivace.search.space import Space
from vivace.search.verdict.finalists import is_safe


def mend(space: Space, memory: Memory) -> Strategy:
    """Plans that were refused for their answers, with their quality won back or made milder. Those that promise no more
    than the leader are let be."""
    refused = [plan for plan, trial in memory.tried.items() if trial.outcome in REFUSED]
    for plan in memory.ranking.ordered(refused):
        if not is_promising(plan, memory):
            return
        yield from mend_one(space, plan, memory)


def mend_one(space: Space, plan: Plan, memory: Memory) -> Strategy:
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
        if is_promising(plan, memory):
            yield from way(space, plan, memory)


def insure(space: Space, memory: Memory) -> Strategy:
    """A milder setting of a leader that may yet be refused, if it promises to beat the best plan that surely will not
    be: else all that is left where the leader is refused in the end is much slower."""
    leader, _, sure = memory.ends
    if leader is None or is_safe(leader):
        return
    seconds = memory.ranking.predicted_seconds
    most = memory.baseline_seconds / ((sure.likely_speedup if sure else None) or 1.0)
    milder = [unmended(plan) for plan in _milder(space, leader.plan)]
    for plan in memory.untried(one for one in milder if seconds(leader.plan) < seconds(one) < most)[:1]:
        yield from ask(memory, plan, TrialStage.SEARCH)
        if memory.tried[plan].outcome in REFUSED:
            yield from _recover(space, plan, memory)


def _milder(space: Space, plan: Plan) -> Iterator[Plan]:
    """A plan with another setting of one technique that changes answers."""
    yield from space.milder(plan)
    for technique in plan:
        if technique.effect is Effect.CHANGED and not technique.mends:
            rest = [other for other in plan if other != technique]
            plans = (space.legal([*rest, setting]) for setting in space.settings.get(technique.name(), ()))
            yield from (found for found in plans if found is not None and found != plan)


def _recover(space: Space, plan: Plan, memory: Memory) -> Strategy:
    """The plan with what may win its quality back, if its answers were refused."""
    for candidate in memory.untried(space.recovered(plan)):
        yield from ask(memory, candidate, TrialStage.SEARCH)


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


def retreat(space: Space, plan: Plan, memory: Memory) -> Strategy:
    """A plan that was refused, or took too long to build, without its coarsest precision, where others are left that
    promise to beat the leader: what int8 loses, or has no time to calibrate, bfloat16 may hold, and a short search may
    end before bfloat16's own turn."""
    if plan not in memory.tried or memory.tried[plan].outcome not in (*REFUSED, Outcome.TIMEOUT):
        return
    cost = memory.ranking.cost
    parts = [space.legal(without(plan, t).techniques) for t in plan if t.stage is Stage.PRECISION]
    finer = [part for part in parts if part and part.cost(cost).precision != plan.cost(cost).precision]
    for part in memory.untried(finer)[:1]:
        if is_promising(part, memory):
            yield from ask(memory, part, TrialStage.SEARCH)
