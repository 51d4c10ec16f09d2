"""What was tried: the baseline ladder, the counts by outcome, and each loser with its reason, what got slower too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from rich.text import Text

from vivace.core.measurement import Interval, Outcome
from vivace.core.plan import Plan
from vivace.core.quality import QualityVerdict
from vivace.core.result import Result, Trial, TrialStage
from vivace.report.duration import show_duration
from vivace.report.layout import line, short
from vivace.report.wording import show_speedup

MAX_RUNGS = 4


def ladder(trials: Sequence[Trial]) -> Iterator[Text]:
    """The rungs of plain PyTorch with their gains."""
    rungs = [trial for trial in trials if trial.stage is TrialStage.LADDER]
    if rungs:
        yield line("ladder of plain PyTorch, speeds from the race:")
    for trial in rungs[:MAX_RUNGS]:
        yield short(f"  {show_speedup(_speed(trial)):20} {trial.name}{_because(trial)}")


def tried(result: Result, finalists: Collection[Plan], room: int) -> Iterator[Text]:
    """How many plans ended how, then at most `room` of those that lost with their reasons, whole where it is one."""
    counts = Counter(trial.outcome for trial in result.candidates)
    words = ", ".join(f"{counts[outcome]} {_word(outcome)}" for outcome in Outcome if counts[outcome])
    took = show_duration(result.wall_seconds)
    yield line(f"tried {len(result.candidates)} in {took}{': ' if words else ''}{words}")
    losers = [t for t in result.candidates if t.plan not in finalists and t.stage is not TrialStage.LADDER]
    losers.sort(key=_interest)
    chosen = next((trial for trial in result.candidates if trial.plan == result.plan), None)
    fitting = line if len(losers) == 1 else short
    if losers:
        yield line("not chosen, speeds from the race:")
    for trial in losers[:room]:
        reason = trial.reason or _unsure(trial) or _looks_faster(trial, chosen)
        yield fitting(f"  {_label(trial):15} {_told(_speed(trial))}{trial.name}{_colon(reason)}")
    if len(losers) > room:
        yield line(f"  and {len(losers) - room} more, each with its reason, in results.json")


def _looks_faster(trial: Trial, chosen: Trial | None) -> str:
    """What to say of one whose race reads faster than the winner's, which beat it: races with the original are minutes
    apart, and the machine may change in between, so candidates are timed against each other."""
    if chosen is None or trial.speedup is None or chosen.speedup is None or trial.rank_speedup >= chosen.rank_speedup:
        return ""
    return "slower in races among candidates" if trial.speedup.value > chosen.speedup.value else ""


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


def _unsure(trial: Trial) -> str:
    """Why one that ran well was not to be relied on: what it loses could not be told from the data of the race."""
    quality = trial.quality
    return quality.reason if quality is not None and quality.verdict is QualityVerdict.CANNOT_TELL else ""


def _label(trial: Trial) -> str:
    if trial.outcome is Outcome.OK and _unsure(trial):
        return "quality unsure"  # before the name, which may be long enough to hide the reason
    return "SLOWER" if _is_slower(trial) and trial.outcome is Outcome.NOT_FASTER else _word(trial.outcome)


def _told(speed: Interval | None) -> str:
    """A speed before the name, where a long name cannot cut it off."""
    return f"{show_speedup(speed)}  " if speed else ""


def _colon(reason: str) -> str:
    return f": {' '.join(reason.split())}" if reason else ""


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
