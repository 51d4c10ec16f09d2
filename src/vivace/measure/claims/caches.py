"""Whether an arm answers repeated inputs from memory, and what of its speed is that."""

from __future__ import annotations

import statistics

from vivace.core.errors import UsageError, WorkerFailure
from vivace.core.measurement import Outcome
from vivace.measure.live import LiveArm

PARTLY = 1.3
"""From this ratio of new to repeated inputs on, with every new input, a part of an answer may come from memory."""
KEPT_SHARE = 0.5
"""Of what is gained on repeated inputs, what has to be left on new ones."""


def refuse_cached(baseline: LiveArm, candidate: LiveArm) -> None:
    """Raise WorkerFailure (WRONG_OUTPUT) when only the candidate answers repeated inputs from memory."""
    reason = why_cached(baseline, candidate)
    if reason:
        raise WorkerFailure(Outcome.WRONG_OUTPUT, reason)


def refuse_cached_original(*arms: LiveArm) -> None:
    """Raise UsageError when all these arms of one original answer repeated inputs from memory."""
    ratios = [arm.caching()["new_over_repeated"] for arm in arms if arm.caching()["cached"]]
    if len(ratios) == len(arms):
        raise UsageError(
            f"the original answers repeated inputs from memory: new inputs take {min(ratios):.1f} times as long, so "
            "its times on repeated ones say nothing; give a model without its cache of results"
        )


def why_cached(baseline: LiveArm, candidate: LiveArm) -> str:
    """How it shows that only the candidate answers repeated inputs from memory; empty where it does not."""
    found = candidate.caching()
    if not found["cached"] or baseline.caching()["cached"]:
        return ""
    return (
        f"new inputs take {found['new_over_repeated']:.1f} times as long as repeated ones, so it answers from memory "
        "and its timing on repeated inputs says nothing"
    )


def why_partly_cached(baseline: LiveArm, candidate: LiveArm) -> str:
    """How it shows that much of what the candidate gains is gained on repeated inputs alone, as by a cache of what its
    first layers gave; empty where it does not.

    What a new input costs both arms, such as its way into the processor's cache, is in both their times. The
    candidate's quickest new input counts, for a busy machine makes some slow.
    """
    found, before = candidate.caching(), baseline.caching()
    if found["cached"] is None or before["cached"] is None or found["new_over_repeated"] < PARTLY:
        return ""
    repeated = statistics.median(before["repeated_seconds"]) / statistics.median(found["repeated_seconds"])
    new = statistics.median(before["new_seconds"]) / min(found["new_seconds"])
    if repeated <= 1 or new >= 1 + KEPT_SHARE * (repeated - 1):
        return ""
    return (
        f"on repeated inputs it is {repeated:.2f} times as fast, on new ones at most {new:.2f} times: a part of its "
        "answers comes from memory, and its timing on repeated inputs says nothing"
    )
