"""What each technique of a winner is worth, a line each, and the calls after which the winner has paid for itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rich.text import Text

from vivace.core.attribution import Attribution, LeftOut, Step
from vivace.core.result import Result, Status
from vivace.report.duration import show_duration
from vivace.report.layout import line, short
from vivace.report.wording import show_speedup


def attribution(result: Result, room: int) -> Iterator[Text]:
    """The waterfall beside the leave-one-out, in the order of the plan, at most `room` techniques; a plan of one
    technique has neither. Then what its compiler's fusion is worth, where that was measured."""
    found = result.attribution
    if found is None:
        return
    if len(found.steps) > 1 and room:
        yield from _techniques(found, room)
    if found.unfused is not None and found.unfused.worth is not None:
        yield line(f"fusion: {show_speedup(found.unfused.worth)} by what {found.unfused.technique} fuses, MEASURED")


def _techniques(found: Attribution, room: int) -> Iterator[Text]:
    is_told = any(part.worth for part in found.left_out) or any(step.speedup for step in found.steps[:-1])
    reasons = Counter(part.reason for part in found.left_out if part.reason)
    if not is_told:  # a line each would be as many dashes; the last step is the whole plan, which was confirmed
        yield line(f"each technique: not measured: {'; '.join(reason for reason, _ in reasons.most_common())}")
        return
    yield line("each technique, MEASURED in one pair of processes (the whole plan: confirmed):")
    yield line(f"  {'so far':19}  {'with / without it':19}  technique")
    for step, left_out in list(zip(found.steps, found.left_out, strict=True))[:room]:
        yield short(f"  {show_speedup(step.speedup):19}  {show_speedup(left_out.worth):19}  {_named(step, left_out)}")
    more = len(found.steps) - room
    if more > 0:
        yield line(f"  and {more} more in results.json")


def payback(result: Result) -> Iterator[Text]:
    """From how many calls on the winner has paid for itself, and what building it took."""
    if result.status is not Status.FASTER:
        return
    trial = next((trial for trial in result.candidates if trial.plan == result.plan), None)
    built = f" ({show_duration(trial.build_seconds)})" if trial is not None else ""
    if result.break_even_calls is None:
        yield line(f"break-even: never, for no time is saved a call; building took time too{built}")
    else:
        calls = f"{result.break_even_calls:,} call{'s' if result.break_even_calls > 1 else ''}"
        yield line(f"break-even: {calls} pay for building{built}, loading and the first call")


def _named(step: Step, left_out: LeftOut) -> str:
    """The technique, with why a figure is missing."""
    return "; ".join([str(step.technique), *dict.fromkeys(r for r in (step.reason, left_out.reason) if r)])
