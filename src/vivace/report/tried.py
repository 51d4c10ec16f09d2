"""What was tried: the baseline ladder, the counts by outcome, and each loser with its reason, what got slower too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from vivace.core.measurement import Interval, Outcome
from vivace.core.plan import Plan
from vivace.core.result import Result, Trial, TrialStage
from vivace.report.duration import show_duration
from vivace.report.layout import Reasoned, line, short
from vivace.report.wording import show_speedup, unsure, why_not_chosen

MAX_RUNGS = 4


def ladder(trials: Sequence[Trial]) -> Iterator[Text]:
    """The rungs of plain PyTorch with their gains."""
    rungs = [trial for trial in trials if trial.stage is TrialStage.LADDER]
    if rungs:
        yield line("ladder of plain PyTorch, speeds from the race:")
    for trial in rungs[:MAX_RUNGS]:
        yield short(f"  {show_speedup(_speed(trial)):20} {trial.name}{_because(trial)}")


def tried(result: Result, finalists: Collection[Plan], room: int) -> Iterator[RenderableType]:
    """How many plans ended how, then at most `room` of those that lost, each with its reason, whole where it is one."""
    counts = Counter(trial.outcome for trial in result.candidates)
    words = ", ".join(f"{counts[outcome]} {_word(outcome)}" for outcome in Outcome if counts[outcome])
    took = show_duration(result.wall_seconds)
    yield line(f"tried {len(result.candidates)} in {took}{': ' if words else ''}{words}")
    losers = [t for t in result.candidates if t.plan not in finalists and t.stage is not TrialStage.LADDER]
    losers.sort(key=_interest)
    lines = None if len(losers) == 1 else Reasoned.lines
    if losers:
        yield line("not chosen, speeds from the race:")
    for trial in losers[:room]:
        head = f"  {_label(trial):15} {_told(_speed(trial))}"
        yield Reasoned(head, trial.name, why_not_chosen(trial, result), lines)
    if len(losers) > room:
        yield line(f"  and {len(losers) - room} more, each with its reason, in results.json")


def _interest(trial: Trial) -> tuple[int, float]:
    """What misbehaved first, then what got slower, then the rest by speed."""
    speed = _speed(trial)
    return _group(trial), -(speed.value if speed else 0.0)


def _group(trial: Trial) -> int:
    if trial.outcome is Outcome.UNSUPPORTED:
        return 3
    if trial.outcome not in (Outcome.OK, Outcome.NOT_FASTER):
        return 0
    return 1 if _is_slower(trial) else 2


def _label(trial: Trial) -> str:
    if trial.outcome is Outcome.OK and unsure(trial):
        return "quality unsure"  # before the name, which may be long enough to hide the reason
    return "SLOWER" if _is_slower(trial) and trial.outcome is Outcome.NOT_FASTER else _word(trial.outcome)


def _told(speed: Interval | None) -> str:
    """A speed before the name, where a long name cannot cut it off."""
    return f"{show_speedup(speed)}  " if speed else ""


def _because(trial: Trial) -> str:
    if trial.outcome is Outcome.OK or _speed(trial) is not None:
        return ""
    return f" ({_word(trial.outcome)}: {trial.reason})"


def _speed(trial: Trial) -> Interval | None:
    return trial.confirmed.speedup if trial.confirmed else trial.speedup


def _is_slower(trial: Trial) -> bool:
    speed = _speed(trial)
    return speed is not None and speed.high < 1


def _word(outcome: Outcome) -> str:
    return outcome.value.replace("_", " ")
