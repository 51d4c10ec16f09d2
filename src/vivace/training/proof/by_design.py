"""A step of a plan that changes the computation by design: what of its distance from the original is no such design.

Two things tell a fault that came late from what is meant. The plan's first steps were compared with the original's too,
and how far each tensor was off then may be its class's. And a fresh rig of the same plan, put where the run is, shows
what the plan makes of these weights: what the rig that trains does otherwise, it does by what has happened since.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from vivace.core.training.parity import Agreement, Kind
from vivace.training.agreement import FLOAT32_ROUNDOFF, GROWTH, MOST_ALLOWED, Judge
from vivace.training.proof.together import Unproved
from vivace.training.trace import Trace

UNMEANT = 0.5
"""Of a tensor's way from the original's, so much may be the run's own alone."""
FURTHER = 1.5
"""How much further off than at the start a tensor may be that was far off then."""
First = Mapping[str, float]
"""How far tensors of the plan's first steps were off, by `Agreement.what`."""


def judged(
    found: Sequence[Agreement], first: First, live: Trace, fresh: Callable[[], Trace] | None, step: int
) -> list[Agreement]:
    """The agreements of the run's own step (`live`) with what such a plan is allowed. What is further off holds where
    `fresh`, a step of a fresh rig from the same weights, is where the run's own is.

    Raises Unproved where it is only known to be further off than at the start: without `fresh`, or like it.
    """
    allowed = [_allowed(one, first) for one in found]
    off = [one for one in allowed if not one.holds]
    if not off:
        return allowed
    wrong = [one for one in off if one.kind is Kind.BATCH or (fresh is None and one.reason)]
    if fresh is not None:
        made = fresh()
        found_so = Judge(FLOAT32_ROUNDOFF).agreements(step, made, made, live, first=True)
        beside = {one.what: one for one in found_so if not one.holds}
        wrong += [one for one in off if one.what in beside and not _is_meant(one, beside[one.what])]
    if wrong:
        return [*wrong, *(one for one in allowed if one.holds)]
    raise Unproved(
        f"CANNOT TELL, as the plan changes the computation by design: {off[0]}, which is more than at the start"
        + (", and a fresh step of the same plan is where it is" if fresh is not None else "")
    )


def _is_meant(one: Agreement, beside: Agreement) -> bool:
    """Whether most of the way from the original to the run's own step is that of a fresh one too."""
    return not beside.reason and not one.reason and beside.error <= UNMEANT * one.error


def _allowed(one: Agreement, first: First) -> Agreement:
    """An agreement that may be as far off as at the start, and some more."""
    then = first.get(one.what)
    if then is None or one.reason:
        return one
    most = min(GROWTH * then, max(MOST_ALLOWED, FURTHER * then))
    return dataclasses.replace(one, allowed=max(one.allowed, most))
