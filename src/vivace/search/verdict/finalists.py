"""Which of the plans that were raced are confirmed, and in which order. No measuring here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from vivace.core.quality import QualityVerdict
from vivace.core.result import Trial
from vivace.core.technique import Effect
from vivace.search.rank import numerics_of


def is_safe(trial: Trial) -> bool:
    """Whether it is likely to be certified: the referee certified what only rounds, or the select part held it."""
    held = trial.quality is not None and trial.quality.verdict is QualityVerdict.HELD
    return held or trial.plan.effect is not Effect.CHANGED


def choose(fit: Sequence[Trial], most: int, most_verdicts: int) -> tuple[list[Trial], int]:
    """The finalists among these trials, which come most promising first, and how many need a verdict on the data.

    Plans that change the answers are as many as the data can certify at once (`most_verdicts`), one of each that
    compute the same. The best plan that only rounds is always among the finalists.
    """
    changing = _with_a_safe_one(_distinct(t for t in fit if t.plan.effect is Effect.CHANGED), most_verdicts)
    rounding = [trial for trial in fit if trial.plan.effect is not Effect.CHANGED]
    rounding = rounding[: max(1, most - len(changing))]
    return [trial for trial in fit if trial in changing or trial in rounding], len(changing)


def following(waiting: Sequence[Trial], has_time: Callable[[Trial, Trial], bool]) -> Trial:
    """Which of the finalists that wait, most promising first, is confirmed next.

    To judge one that then fails costs little, so the most promising goes first, unless it may fail and there would be
    no time left for a safe one after it (`has_time(risky, safe)`).
    """
    safe = next((trial for trial in waiting if is_safe(trial)), None)
    for trial in waiting:
        if safe is None or is_safe(trial) or has_time(trial, safe):
            return trial
    return waiting[0]


def _distinct(trials: Iterable[Trial]) -> list[Trial]:
    """The first of those that compute the same: a verdict on one is a verdict on all."""
    found: dict[tuple[str, ...], Trial] = {}
    for trial in trials:
        found.setdefault(numerics_of(trial.plan), trial)
    return list(found.values())


def _with_a_safe_one(trials: list[Trial], most: int) -> list[Trial]:
    """The best few, the last of them replaced by the best whose quality the select part held, if none of them was."""
    chosen = trials[:most]
    safe = next(filter(is_safe, trials), None)
    if chosen and safe is not None and not any(map(is_safe, chosen)):
        chosen[-1] = safe
    return chosen
