"""How speeds, times, sizes and verdicts are worded; each function gives plain text for one line."""

from __future__ import annotations

from typing import Final

from vivace.core.compute import Reach
from vivace.core.machine import Ceiling
from vivace.core.measurement import ArmTimes, Comparison, Interval, SpeedVerdict
from vivace.core.quality import Quality, QualityVerdict
from vivace.core.result import Result, Status, Trial
from vivace.core.workload import Objective

P99_CALLS = 473
"""Calls from which a p99 can be bounded at 95% (MLPerf Inference's early-stopping rule, one-sided order statistics)."""


WIDE = 10.0
"""Ends of an interval so many times apart leave its middle saying little: a sentence begins with the lower one."""
NO_ROOM: Final = "not confirmed: no time, or no place among the finalists, was left"


def show_speedup(speedup: Interval | float | None) -> str:
    """
    >>> show_speedup(Interval(2.31, 2.27, 2.35)), show_speedup(1.5), show_speedup(None)
    ('2.31x [2.27, 2.35]', '1.50x', '-')
    """
    if speedup is None:
        return "-"
    if isinstance(speedup, Interval):
        return f"{_ratio(speedup.value)}x [{_ratio(speedup.low)}, {_ratio(speedup.high)}]"
    return f"{_ratio(speedup)}x"


def show_milliseconds(seconds: float | None) -> str:
    """
    >>> show_milliseconds(0.00120345), show_milliseconds(1.5), show_milliseconds(2.5e-6), show_milliseconds(None)
    ('1.20', '1500', '0.0025', '-')
    """
    if seconds is None:
        return "-"
    milliseconds = seconds * 1e3
    if milliseconds >= 100:
        return f"{milliseconds:.0f}"
    return f"{milliseconds:.2f}" if milliseconds >= 1 else f"{milliseconds:.2g}"


def show_place(where: Reach | Ceiling) -> str:
    """Where a rate was reached: with how many threads of the processor, or on which kind of device.

    >>> show_place(Ceiling(2, {}, 1.0)), show_place(Ceiling(1, {}, 1.0)), show_place(Ceiling(1, {}, 1.0, "cuda"))
    ('2 threads', '1 thread', 'CUDA device')
    """
    if where.device != "cpu":
        return f"{where.device.upper()} device"
    return f"{where.threads} thread{'s' if where.threads > 1 else ''}"


def show_bytes(count: int | None) -> str:
    """
    >>> show_bytes(1_234_567), show_bytes(900), show_bytes(None)
    ('1.2 MB', '900 B', '-')
    """
    if count is None:
        return "-"
    if count < 1000:
        return f"{count} B"
    size, units = count / 1000, iter(("kB", "MB", "GB", "TB"))
    unit = next(units)
    while size >= 999.5 and unit != "TB":
        size, unit = size / 1000, next(units)
    return f"{size:.0f} {unit}" if size >= 100 else f"{size:.1f} {unit}"


def show_percentiles(times: ArmTimes) -> str:
    """The 90th and the 99th percentile in milliseconds; a tail that too few calls were made for is not printed.

    >>> show_percentiles(ArmTimes(0.001, 0.0012, None, 320, 0, 0, True, 0))
    '1.20 / n=320'
    """
    tail = f"n={times.calls}" if times.p99_seconds is None else show_milliseconds(times.p99_seconds)
    return f"{show_milliseconds(times.p90_seconds)} / {tail}"


def speed_sentence(comparison: Comparison, baseline: str = "the original") -> str:
    """What a comparison concluded, in words, with its interval and the label MEASURED."""
    speedup = comparison.speedup
    interval = f"[{_ratio(speedup.low)}, {_ratio(speedup.high)}]"
    if comparison.verdict is SpeedVerdict.FASTER and speedup.high > WIDE * speedup.low:
        told = f"{_ratio(speedup.value)}x {interval}, for runs disagreed"
        return f"at least {_ratio(speedup.low)}x faster than {baseline}, MEASURED ({told})"
    if comparison.verdict is SpeedVerdict.FASTER:
        return f"{_ratio(speedup.value)}x faster {interval} than {baseline}, MEASURED"
    if comparison.verdict is SpeedVerdict.SLOWER:
        return f"SLOWER: {_ratio(speedup.value)}x the speed {interval} of {baseline}, MEASURED"
    if comparison.verdict is SpeedVerdict.SAME:
        return f"the SAME speed as {baseline}: {_ratio(speedup.value)}x {interval}, MEASURED"
    return f"UNDECIDED against {baseline}: {_ratio(speedup.value)}x {interval}, MEASURED"


def quality_sentence(quality: Quality) -> str:
    """The quality verdict with the numbers that it rests on."""
    head = f"quality {quality.verdict.value}"
    if quality.drop is not None:
        return head + ": " + _drop(quality) + _needed(quality)
    if quality.fidelity is not None:
        return head + " by fidelity: " + _fidelity(quality) + _needed(quality)
    return head + (f": {quality.reason or quality.basis}" if quality.reason or quality.basis else "") + _needed(quality)


def _drop(quality: Quality) -> str:
    scale, unit = (100, " pp") if _is_share(quality.baseline) and _is_share(quality.candidate) else (1, "")
    words = f"drop {_signed((quality.drop or 0.0) * scale)}{unit}"
    if quality.drop_upper is not None:
        within = quality.drop_upper < quality.margin
        words += f", upper bound {_signed(quality.drop_upper * scale)} {'<' if within else '>='} budget "
        words += f"{_margin(quality.margin * scale)}{unit}"
        if quality.verdict is QualityVerdict.HELD and not within:
            words += f", held by {quality.basis}"
    return f"{words} (n={quality.samples})"


def _fidelity(quality: Quality) -> str:
    found = quality.fidelity
    assert found is not None
    parts = []
    if found.agreement is not None:
        bound = "" if found.agreement_low is None else f" (at least {found.agreement_low:.2%})"
        parts.append(f"top-1 agreement {found.agreement:.2%}{bound}")
    return ", ".join([*parts, f"SQNR {found.sqnr_db:.0f} dB", f"n={found.samples}"])


def _needed(quality: Quality) -> str:
    return "" if quality.samples_needed is None else f"; about {quality.samples_needed} samples like these would decide"


def _is_share(score: float | None) -> bool:
    return score is not None and 0 <= score <= 1


def _signed(value: float) -> str:
    return f"{value:.2f}" if round(value, 2) else "0.00"


def _margin(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.3g}"


def _ratio(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def unsure(trial: Trial) -> str:
    """Why one that ran well was not to be relied on: what it loses could not be told from the data of the race."""
    quality = trial.quality
    return quality.reason if quality is not None and quality.verdict is QualityVerdict.CANNOT_TELL else ""


def why_not_chosen(trial: Trial, result: Result) -> str:
    """Why a plan was not delivered: its own reason, else how it compares with what was; empty for that itself."""
    if trial.reason or unsure(trial):
        return trial.reason or unsure(trial)
    is_faster = result.status is Status.FASTER
    if is_faster and trial.plan == result.plan:
        return ""
    if trial.confirmed is not None:
        return _confirmed_otherwise(trial, trial.confirmed, result)
    winner = next((one for one in result.candidates if is_faster and one.plan == result.plan), None)
    return _raced_otherwise(trial, winner, result)


def _confirmed_otherwise(trial: Trial, found: Comparison, result: Result) -> str:
    held = _held(found.candidate.peak_memory_bytes, trial.size_bytes, result)
    if held is not None:
        return f"confirmed with {held}"
    if found.verdict is not SpeedVerdict.FASTER:
        return f"confirmed {found.verdict.value} beside the original"
    if "calls" in result.conditions:
        return "loading it and all calls take longer"
    if result.status is not Status.FASTER:
        return "confirmed, and not delivered"
    if set(result.plan.techniques) < set(trial.plan.techniques):
        return "the winner is this plan less what brings nothing"
    if found.speedup.value >= result.speedup.value:
        return "confirmed as fast as the winner, which changes less"
    within = ", within its interval" if found.speedup.value >= result.speedup.low else ""
    return f"confirmed slower than the winner{within}"


def _raced_otherwise(trial: Trial, winner: Trial | None, result: Result) -> str:
    """Races with the original are minutes apart, and the machine may change in between, so candidates are timed against
    each other: one whose race reads faster than the winner's may have lost to it."""
    held = _held(trial.peak_memory_bytes, trial.size_bytes, result)
    if held is not None:
        return f"not confirmed, with {held} in the race"
    if trial.speedup is None:
        return "not timed"
    if winner is None or winner.speedup is None:
        least = trial.speedup.value if trial.speedup.value <= 1 else trial.speedup.low
        return "not clearly faster than the original in the race" if least <= 1 else NO_ROOM
    if trial.rank_speedup >= winner.rank_speedup:
        return NO_ROOM
    if trial.speedup.value <= winner.speedup.value:
        return "slower in the race than the winner"
    if trial.standing is not None:
        return "slower in races among candidates"
    return f"its race is sure of {show_speedup(trial.speedup.low)} alone, less than the winner's"


def _held(memory: int | None, size: int | None, result: Result) -> str | None:
    """The bytes that the objective is about; None where it is a time."""
    objective = result.conditions.get("objective")
    return {
        Objective.MEMORY.value: f"{show_bytes(memory)} of memory",
        Objective.SIZE.value: f"{show_bytes(size)} on the disk",
    }.get(str(objective))
