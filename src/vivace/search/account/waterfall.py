"""Which configurations tell what each technique of a plan is worth, and what they say. No input or output."""

from __future__ import annotations

from collections.abc import Callable

from vivace.core.attribution import Attribution, Finding, LeftOut, Step
from vivace.core.facts import Fact
from vivace.core.measurement import Interval
from vivace.core.plan import Plan
from vivace.core.technique import Technique
from vivace.search.rank import without

Find = Callable[[Plan], Finding]


def attribution_of(plan: Plan, facts: frozenset[Fact], find: Find) -> Attribution:
    """Ask for the plan, for it less each technique, for its beginnings, then for it without its compiler's fusion; each
    configuration once, if it is legal.

    `facts` are those that plans start from. The plan less each technique comes first, for it answers the question most
    directly when time is short.
    """
    look = _once(facts, find)
    winner = look(plan)
    left_out = tuple(_left_out(technique, without(plan, technique), winner, look) for technique in plan)
    steps = tuple(_step(part, look) for part in beginnings(plan))
    fusing = next((technique for technique in plan if technique.unfused() is not None), None)
    return Attribution(steps, left_out, None if fusing is None else _left_out(fusing, unfused(plan), winner, look))


def beginnings(plan: Plan) -> tuple[Plan, ...]:
    """The plan's first technique, its first two, and so on to the plan itself."""
    return tuple(Plan(plan.techniques[: count + 1]) for count in range(len(plan)))


def unfused(plan: Plan) -> Plan:
    """The plan with what fuses in it told not to; itself where nothing can be told so."""
    return Plan(tuple(technique.unfused() or technique for technique in plan))


def configurations(plan: Plan) -> set[Plan]:
    """Every configuration that is measured anew for a plan: the plan itself was confirmed, the original is known."""
    parts = {*beginnings(plan), *(without(plan, technique) for technique in plan), unfused(plan)}
    return parts - {plan, Plan()}


def _once(facts: frozenset[Fact], find: Find) -> Find:
    found: dict[Plan, Finding] = {}

    def look(plan: Plan) -> Finding:
        if plan not in found:
            found[plan] = _unmeasured(plan, facts) or find(plan)
        return found[plan]

    return look


def _unmeasured(plan: Plan, facts: frozenset[Fact]) -> Finding | None:
    if not len(plan):
        return Finding(None, reason="it is the original")
    reason = plan.illegal(facts)
    return Finding(None, reason=reason) if reason else None


def _step(part: Plan, look: Find) -> Step:
    found = look(part)
    return Step(part.techniques[-1], part, found.speedup, found.restarts, found.reason)


def _left_out(technique: Technique, rest: Plan, winner: Finding, look: Find) -> LeftOut:
    found = look(rest)
    worth = winner.speedup if not len(rest) else _over(winner.speedup, found.speedup)
    return LeftOut(technique, rest, found.speedup, worth, found.restarts, found.reason)


def _over(winner: Interval | None, rest: Interval | None) -> Interval | None:
    """One speed-up over another, measured apart: the ends divided crosswise."""
    if winner is None or rest is None:
        return None
    return Interval(winner.value / rest.value, winner.low / rest.high, winner.high / rest.low)
