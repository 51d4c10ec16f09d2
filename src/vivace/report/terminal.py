"""The final block: at most 40 lines that can be pasted into an issue, plain where there is no terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from vivace.core.facts import Fact
from vivace.core.forecast import Expected, Forecast
from vivace.core.measurement import ArmTimes, Comparison, Outcome, SpeedVerdict
from vivace.core.quality import Quality, QualityVerdict
from vivace.core.result import Result, Status, Trial, TrialStage
from vivace.core.workload import Objective
from vivace.report.attribution import attribution, payback
from vivace.report.duration import show_duration
from vivace.report.headline import advice, headline
from vivace.report.layout import line, plain_table, short
from vivace.report.machinery import compute_line, cores_words, fused_line, overhead_line
from vivace.report.mix import mix_lines
from vivace.report.results import PAGE, to_document
from vivace.report.tried import ladder, tried
from vivace.report.wording import (
    P99_CALLS,
    show_bytes,
    show_milliseconds,
    show_percentiles,
    show_speedup,
    speed_sentence,
)

MAX_FINALISTS = 3
MAX_LOSERS = 12
MAX_TECHNIQUES = 4
MAX_NOTES = 2
MAX_LINES = 40
MAX_PREVIEWED = 20
STOPPED = {Outcome.UNSUPPORTED, Outcome.CONVERT_FAILED, Outcome.CRASHED, Outcome.OOM, Outcome.INFRA_ERROR}
"""Ends of a trial that more time does not change."""
UNSHOWN = ("machine", "environment", "versions", "baseline_seconds", "timed_region", "seconds_allowed")
"""Conditions that results.json holds and the block has no room for, or shows in words of its own."""


def print_result(console: Console, result: Result) -> None:
    """Print the block of a result in at most 40 lines: as many losers, then techniques, then notes, as there is room
    for."""
    rooms = [(losers, MAX_TECHNIQUES, MAX_NOTES) for losers in range(MAX_LOSERS, 0, -1)]
    rooms += [(1, techniques, MAX_NOTES) for techniques in range(MAX_TECHNIQUES - 1, -1, -1)]
    rooms += [(1, 0, notes) for notes in range(MAX_NOTES - 1, -1, -1)]
    for room in rooms:
        if len(_lines(console, result_block(result, *room))) <= MAX_LINES:
            break
    print_block(console, result_block(result, *room))


def result_block(
    result: Result, losers: int = MAX_LOSERS, techniques: int = MAX_TECHNIQUES, notes: int = MAX_NOTES
) -> RenderableType:
    """Everything that a reader needs of a result, verdict first: finalists, ladder, what was tried, conditions."""
    finalists = _finalists(result)
    return Group(
        _verdict(result),
        line(f"plan: {result.plan}"),
        Text(""),
        _finalist_table(result, finalists),
        *_names(finalists),
        *_tails([result.comparison.baseline, *(t.confirmed.candidate for t in finalists if t.confirmed)]),
        *_gains(result),
        *mix_lines(result),
        *payback(result),
        *attribution(result, techniques),
        *(line(text) for text in _machinery(result) if text),
        *ladder(result.candidates),
        Text(""),
        *tried(result, {trial.plan for trial in finalists}, losers),
        Text(""),
        *(line(f"note: {note}") for note in result.notes[:notes]),
        line(_conditions(result)),
        *_page(result),
        line(_next_step(result)),
    )


def _machinery(result: Result) -> tuple[str, ...]:
    seen = [cores_words(found) for found in result.cores[:1]]
    return fused_line(result.fused), compute_line(result.compute), overhead_line(result.compute), *seen


def comparison_block(comparison: Comparison, a: str, b: str) -> RenderableType:
    """What `vivace measure A B` found: the verdict, both arms, the evidence."""
    table = plain_table("arm", "median ms", "p90/p99 ms", "first call ms", "load s", "memory", giving="arm")
    for name, times in ((f"A {a}", comparison.baseline), (f"B {b}", comparison.candidate)):
        table.add_row(
            Text(name, no_wrap=True, overflow="ellipsis"),
            show_milliseconds(times.median_seconds),
            show_percentiles(times),
            show_milliseconds(times.first_call_seconds),
            f"{times.load_seconds:.2f}",
            show_bytes(times.peak_memory_bytes),
        )
    unsteady = [name for name, times in (("A", comparison.baseline), ("B", comparison.candidate)) if not times.steady]
    return Group(
        Text(f"B is {speed_sentence(comparison, 'A')}", _speed_style(comparison.verdict)),
        table,
        *_tails([comparison.baseline, comparison.candidate]),
        *([line(f"UNSTEADY: {' and '.join(unsteady)} never settled while warming up")] if unsteady else []),
        *([line(comparison.note)] if comparison.note else []),
        line(f"{_evidence(comparison)}; noise floor {comparison.noise_floor:.1%}"),
    )


def preview_block(forecast: Forecast) -> RenderableType:
    """What a search would try, in this order, what it would take, and what is left out and why; nothing was run."""
    return Group(
        Text(_previewed_words(len(forecast.plans)), "bold"),
        *_previewed(forecast.plans, forecast.objective),
        *([line("where a plan loses too much quality, also with that won back:")] if forecast.if_refused else []),
        *(_previewed(forecast.if_refused, forecast.objective) if forecast.if_refused else []),
        line(
            f"PREDICTED in all: {show_duration(round(forecast.total_seconds))} of the "
            f"{show_duration(forecast.seconds)} allowed, and up to {show_bytes(forecast.disk_bytes)} of disk for "
            "programs while it runs"
        ),
        *([line("left out:")] if forecast.left_out else []),
        *(short(f"  {name}: {reason}") for name, reason in forecast.left_out.items()),
        *(line(f"note: {note}") for note in forecast.notes),
    )


def _previewed_words(count: int) -> str:
    if count == 1:
        return "1 plan would be tried; its numbers are PREDICTED"
    return f"{count} plans would be tried, in this order if each goes as PREDICTED"


def _previewed(plans: Sequence[Expected], objective: Objective) -> list[RenderableType]:
    weights = ("weights",) if objective in (Objective.MEMORY, Objective.SIZE) else ()
    table = plain_table("#", "speed-up", *weights, "takes", "plan", giving="plan")
    for number, expected in enumerate(plans[:MAX_PREVIEWED], 1):
        held = [show_bytes(expected.weight_bytes) for _ in weights]
        takes = show_duration(round(expected.seconds))
        table.add_row(str(number), show_speedup(expected.speedup), *held, takes, str(expected.plan))
    more = len(plans) - MAX_PREVIEWED
    return [table, *([line(f"and {more} more (--json lists all)")] if more > 0 else [])]


def print_block(console: Console, block: RenderableType) -> None:
    """Print a block without trailing blanks, so that it can be pasted; signs that the stream cannot show become "?"."""
    text = "".join(f"{text}\n" for text in _lines(console, block))
    console.file.write(text.encode(console.encoding, "replace").decode(console.encoding))
    console.file.flush()


def _lines(console: Console, block: RenderableType) -> list[str]:
    with console.capture() as captured:
        console.print(block)
    return [line.rstrip() for line in captured.get().removesuffix("\n").split("\n")]


def _verdict(result: Result) -> Text:
    where = f"; artifact {result.artifact}/" if result.artifact is not None else "; no artifact was written"
    style = "bold green" if result.status is Status.FASTER else "bold yellow"
    return Text(f"{headline(to_document(result))}{where}", style)


def _finalists(result: Result) -> list[Trial]:
    confirmed = [trial for trial in result.candidates if trial.confirmed is not None]
    confirmed.sort(key=lambda trial: (trial.plan != result.plan, -_value(trial.confirmed)))
    plain = {TrialStage.LADDER}
    return [t for t in confirmed if t.stage not in plain or t.plan == result.plan][:MAX_FINALISTS]


def _value(comparison: Comparison | None) -> float:
    return comparison.speedup.value if comparison else 0.0


def _finalist_table(result: Result, finalists: Sequence[Trial]) -> Table:
    table = plain_table("#", "speed-up", "median ms", "p90/p99 ms", "memory", "size", "quality")
    base = result.comparison.baseline
    table.add_row(
        "0",
        "1x",
        show_milliseconds(base.median_seconds),
        show_percentiles(base),
        show_bytes(base.peak_memory_bytes),
        "-",
        "reference",
    )
    for number, trial in enumerate(finalists, 1):
        table.add_row(str(number), *_figures(trial))
    return table


def _figures(trial: Trial) -> Iterator[RenderableType]:
    assert trial.confirmed is not None
    times = trial.confirmed.candidate
    yield show_speedup(trial.confirmed.speedup)
    yield show_milliseconds(times.median_seconds)
    yield show_percentiles(times)
    yield show_bytes(times.peak_memory_bytes or trial.peak_memory_bytes)
    yield show_bytes(trial.size_bytes)
    yield Text("-") if trial.quality is None else Text(trial.quality.verdict.value, _quality_style(trial.quality))


def _names(finalists: Sequence[Trial]) -> Iterator[Text]:
    names = ["original", *(trial.name for trial in finalists)]
    yield from (short(f"  {number} {name}") for number, name in enumerate(names))


def _tails(arms: Sequence[ArmTimes]) -> Iterator[Text]:
    calls = sorted({times.calls for times in arms if times.p99_seconds is None})
    if calls:
        counts = ", ".join(f"n={count}" for count in calls)
        yield line(f"  p99 not estimable ({counts}): it needs {P99_CALLS} calls")


def _gains(result: Result) -> Iterator[Text]:
    if result.status is Status.FASTER:
        yield line(f"gain over the original {show_speedup(result.speedup)}{_over_rung(result)}")


def _over_rung(result: Result) -> str:
    rung = result.best_rung
    if rung is None:
        return ""
    if rung.plan == result.plan:
        return "; the winner is itself the best plain rung"
    gain = result.speedup.value / rung.comparison.speedup.value
    return f"; over the best plain rung ({rung.plan}) {show_speedup(gain)}"


def _conditions(result: Result) -> str:
    parts = [_evidence(result.comparison), f"noise floor {result.noise_floor:.1%}", *_where(result.conditions)]
    return "conditions: " + "; ".join(part for part in parts if part)


def _evidence(comparison: Comparison) -> str:
    return f"{comparison.blocks} paired blocks in {comparison.restarts} pairs of fresh processes"


def _where(conditions: Mapping[str, Any]) -> Iterator[str]:
    machine, versions = conditions.get("machine"), conditions.get("versions")
    if isinstance(machine, Mapping):
        yield f"{machine.get('processor', '?')}, {machine.get('cores_allowed', '?')} cores allowed"
    if isinstance(versions, Mapping):
        yield ", ".join(f"{name} {versions[name]}" for name in ("python", "torch") if name in versions)
    for key, value in conditions.items():
        if isinstance(value, str | int | float) and value != "" and key not in UNSHOWN:
            shown = f"{value:.3g}" if isinstance(value, float) else value
            yield f"{key.replace('_', ' ')} {shown}"


def _page(result: Result) -> Iterator[Text]:
    page = None if result.artifact is None else result.artifact / PAGE
    if page is not None and page.is_file():
        yield line(f"report: {page}")


def _next_step(result: Result) -> str:
    if result.artifact is None:
        return "next: run again with --out FOLDER to keep the result"
    if result.status is Status.QUALITY_UNCERTIFIED:
        return "next: give more labelled data, or accept the point estimate with --gate point"
    if result.candidates and all(trial.outcome in STOPPED for trial in result.candidates):
        return "next: see above what stopped each plan; the artifact is the original, ready to load"
    if result.status is Status.NOTHING_FASTER:
        return f"next: {advice(to_document(result))}; the artifact is the original, ready to load"
    trust = ", trust=True" if any(Fact.NATIVE_ALLOWED in technique.needs for technique in result.plan) else ""
    return f'next: python -c "import vivace as vv; model = vv.load({str(result.artifact)!r}{trust})"'


def _speed_style(verdict: SpeedVerdict) -> str:
    return {SpeedVerdict.FASTER: "bold green", SpeedVerdict.SLOWER: "bold red"}.get(verdict, "bold")


def _quality_style(quality: Quality) -> str:
    return {QualityVerdict.HELD: "green", QualityVerdict.NOT_HELD: "red"}.get(quality.verdict, "yellow")
