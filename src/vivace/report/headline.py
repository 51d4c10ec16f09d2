"""The first line of everything that is told about a result: what was won and how sure that is, or that nothing won."""

from __future__ import annotations

from collections import Counter

from vivace.core.measurement import Outcome, SpeedVerdict
from vivace.core.result import Status
from vivace.core.workload import Objective
from vivace.report.candidates import winner_of
from vivace.report.duration import show_duration
from vivace.report.results import ResultDocument, TrialDocument
from vivace.report.wording import quality_sentence, show_bytes, show_speedup, speed_sentence

LONGER = 3
"""Of the time allowed, what is advised where it was too short: three times as long."""
NOT_FOUND = {
    Objective.MEMORY.value: "nothing was found that takes clearly less memory, is not slower and holds the budget",
    Objective.SIZE.value: "nothing was found that is clearly smaller on the disk, not slower and holds the budget",
}
"""What is said of the objectives that are no time."""


def headline(document: ResultDocument) -> str:
    """One sentence: the gain with its interval and the verdict on quality; or that the original was kept."""
    if document.status is Status.FASTER:
        return f"{_gain(document)}; {quality_sentence(document.quality)}"
    if document.status is Status.QUALITY_UNCERTIFIED:
        return f"kept the original: the quality of another plan could not be certified; {_doubt(document)}"
    return f"kept the original: {_lost(document)}"


def advice(document: ResultDocument) -> str:
    """What may help where the original was kept although no quality was in doubt."""
    longer = f"give more time (--time {show_duration(LONGER * document.conditions.get('seconds_allowed', 300.0))})"
    if not document.candidates:
        return longer
    if _unpaid(document) is not None:
        return "keep a loaded model for more calls (--calls), or compare single calls by leaving --calls out"
    return f"{longer} or another objective"


def _lost(document: ResultDocument) -> str:
    """Why nothing else was delivered, where no quality was in doubt."""
    if not document.candidates:
        return "no plan was tried, for the time was used up before"
    unpaid = _unpaid(document)
    if unpaid is not None:
        calls = document.conditions["calls"]
        count = f"{calls} call{'s' if calls > 1 else ''}"
        return f"{unpaid.plan_name} is faster a call, but loading it is not made up for by {count}"
    return NOT_FOUND.get(document.conditions.get("objective", ""), "nothing faster was found that holds the budget")


def _unpaid(document: ResultDocument) -> TrialDocument | None:
    """The fastest plan that was faster a call and lost by the time of all calls that a loaded model will serve."""
    faster = [t for t in document.candidates if t.confirmed and t.confirmed.verdict is SpeedVerdict.FASTER]
    return max(faster, key=_speed, default=None) if "calls" in document.conditions else None


def why_kept(document: ResultDocument) -> str:
    """Why the original was kept: how the plans ended, and how near the nearest came. Empty where something won."""
    if document.status is Status.FASTER:
        return ""
    if not document.candidates:
        return "no plan was tried: the time was used up before"
    counts = Counter(trial.outcome for trial in document.candidates)
    ended = ", ".join(f"{counts[one]} {one.value.replace('_', ' ')}" for one in Outcome if counts[one])
    return f"of {len(document.candidates)} plans: {ended}{_nearest(document)}"


def _nearest(document: ResultDocument) -> str:
    finalists = [trial for trial in document.candidates if trial.confirmed is not None]
    best = max(finalists, key=_speed, default=None)
    if best is None or best.confirmed is None:
        return "; none was confirmed"
    verdict = "" if best.quality is None else f", quality {best.quality.verdict.value}"
    return f"; the nearest when confirmed, {best.plan_name}, was {speed_sentence(best.confirmed)}{verdict}"


def _gain(document: ResultDocument) -> str:
    """What became better by how much: the speed first, or the memory or size when that was the objective."""
    speed = speed_sentence(document.comparison)
    objective = document.conditions.get("objective")
    before, after = document.comparison.baseline.peak_memory_bytes, document.comparison.candidate.peak_memory_bytes
    if objective == Objective.MEMORY.value:
        return f"peak memory {show_bytes(after)}, the original {show_bytes(before)}, MEASURED; {speed}"
    if objective == Objective.SIZE.value:
        won = winner_of(document)
        return f"size {show_bytes(won.size_bytes if won else None)}; {speed}"
    if objective == Objective.THROUGHPUT.value:
        return f"{_samples_a_second(document)}; {speed}"
    return speed


def _samples_a_second(document: ResultDocument) -> str:
    size = int(document.conditions.get("batch_size", 1))
    arms = document.comparison.baseline, document.comparison.candidate
    before, after = (size / times.median_seconds for times in arms)
    return f"{after:.4g} samples a second with {size} a call, the original {before:.4g}, MEASURED"


def _doubt(document: ResultDocument) -> str:
    """The verdict on the fastest plan that could not be certified."""
    unsure = [t for t in document.candidates if t.outcome is Outcome.QUALITY_UNKNOWN and t.quality is not None]
    best = max(unsure, key=lambda trial: trial.speedup.value if trial.speedup else 0.0, default=None)
    if best is None or best.quality is None:
        return quality_sentence(document.quality)
    return f"{best.plan_name} ({show_speedup(best.speedup)}): {quality_sentence(best.quality)}"


def _speed(trial: TrialDocument) -> float:
    return trial.confirmed.speedup.value if trial.confirmed else 0.0
