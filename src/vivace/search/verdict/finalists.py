"""Which of the plans that were raced are confirmed, and in which order. No measuring here."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

from vivace.core.quality import QualityVerdict
from vivace.core.result import Trial
from vivace.core.technique import Effect
from vivace.search.rank import numerics_of

MOST_CONSIDERED = 12
"""Of the fastest plans that change answers; sets of them are compared."""


def is_safe(trial: Trial) -> bool:
    """Whether it is likely to be certified: the referee certified what only rounds, or the select part held it."""
    held = trial.quality is not None and trial.quality.verdict is QualityVerdict.HELD
    return held or trial.plan.effect is not Effect.CHANGED


def gambles_of(fit: Sequence[Trial]) -> list[Trial]:
    """Of trials that come most promising first, those before the first one that is likely to be certified: each may be
    refused, and is judged before that one's turn comes. One of those that compute the same."""
    return distinct(itertools.takewhile(lambda trial: not is_safe(trial), fit))


def choose(
    fit: Sequence[Trial],
    most: int,
    most_verdicts: int,
    promise: Callable[[Trial], float],
    chance: Callable[[Trial, int], float],
) -> tuple[list[Trial], int]:
    """The finalists among these trials, which come most promising first, and how many need a verdict on the data.

    Of the plans that change the answers, one of each that compute the same, those are taken from which most can be
    expected: each further verdict divides the error allowed, so that all become less likely to be certified.
    `chance(trial, verdicts)` is how likely one is then; the data can certify `most_verdicts` at once. The best plan
    that only rounds is always among the finalists.
    """
    rounding = [trial for trial in fit if trial.plan.effect is not Effect.CHANGED]
    different = distinct(t for t in fit if t.plan.effect is Effect.CHANGED)[:MOST_CONSIDERED]
    otherwise = max(map(promise, rounding), default=0.0)
    sets = (some for count in range(most_verdicts + 1) for some in itertools.combinations(different, count))
    changing = max(sets, key=lambda some: _expected(some, otherwise, promise, chance))
    rounding = rounding[: max(1, most - len(changing))]
    return [trial for trial in fit if trial in changing or trial in rounding], len(changing)


def _expected(
    some: Sequence[Trial],
    otherwise: float,
    promise: Callable[[Trial], float],
    chance: Callable[[Trial, int], float],
) -> float:
    """What the best certified one of these promises on average; `otherwise` is what there is when none is."""
    total, none_yet = 0.0, 1.0
    for trial in some:  # most promising first
        if promise(trial) <= otherwise:
            break
        certified = chance(trial, len(some))
        total += none_yet * certified * promise(trial)
        none_yet *= 1 - certified
    return total + none_yet * otherwise


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


def distinct(trials: Iterable[Trial]) -> list[Trial]:
    """The first of those that compute the same: a verdict on one is a verdict on all."""
    found: dict[tuple[str, ...], Trial] = {}
    for trial in trials:
        found.setdefault(numerics_of(trial.plan), trial)
    return list(found.values())
