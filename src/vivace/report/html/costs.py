"""Figure 8: memory, size and what is paid once, before and after; break-even; speed by threads where that was tried."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator

from markupsafe import Markup

from vivace.core.measurement import Interval
from vivace.core.result import Status
from vivace.report.candidates import speed_of, winner_of
from vivace.report.html import chart, svg
from vivace.report.html.chart import Bar, Panel
from vivace.report.html.figure import Cell, Figure, Table, absent, table
from vivace.report.html.scale import linear, logarithmic
from vivace.report.html.words import byte_unit, cut, interval, number, plural, time_unit
from vivace.report.results import ResultDocument, TechniqueDocument

NUMBER, KEY, TITLE = 8, "costs", "Memory, size, and what is paid once"
LABELS = 150.0
THREADS = "threads"
MOST_SWEEPS = 4


@dataclasses.dataclass(frozen=True)
class Cost:
    """One cost of the original and of the delivered program; None where it was not measured. `is_time`: in seconds."""

    name: str
    before: float | None
    after: float | None
    is_time: bool


Sweep = tuple[str, list[tuple[int, Interval]]]
"""A plan without its threads, and its speed-up by their count."""


def figure(document: ResultDocument) -> Figure:
    """Costs side by side, the break-even count, and the sweep over threads where plans differ by nothing else."""
    costs, sweeps = costs_of(document), list(sweeps_of(document))
    known = [cost for cost in costs if cost.before is not None or cost.after is not None]
    if not known:
        return absent(NUMBER, KEY, TITLE, "No cost was measured.")
    return Figure(
        NUMBER,
        KEY,
        TITLE,
        " ".join([_break_even(document), _worse(costs), _swept(sweeps), *_batches(document)]).strip(),
        (_drawing(known), *([_threads(sweeps)] if sweeps else [])),
        f"medians over {plural(document.comparison.restarts, 'pair')} of fresh processes; memory: the highest of them",
        "peak memory of the process; size of the stored program; load, and the first call after it; building counts "
        "for the delivered plan only. Break-even: calls whose saved time pays for building, loading and the first "
        "call. Speeds by threads are from the race and only rank",
        "MEASURED; bytes, seconds",
        (_table(costs), *([_sweep_table(sweeps)] if sweeps else [])),
    )


def costs_of(document: ResultDocument) -> list[Cost]:
    """What each program takes beside its calls."""
    before, after, won = document.comparison.baseline, document.comparison.candidate, winner_of(document)
    return [
        Cost("peak memory", before.peak_memory_bytes, after.peak_memory_bytes, False),
        Cost("size of the program", None, won.size_bytes if won else None, False),
        Cost("load", before.load_seconds, after.load_seconds, True),
        Cost("first call", before.first_call_seconds, after.first_call_seconds, True),
        Cost("build", None, won.build_seconds if won else None, True),
    ]


def sweeps_of(document: ResultDocument) -> Iterator[Sweep]:
    """Plans that were timed with several counts of threads and are equal otherwise, the fastest first."""
    found: dict[str, dict[int, Interval]] = defaultdict(dict)
    for trial in document.candidates:
        count = next((part.settings.get("count") for part in trial.plan if part.technique == THREADS), None)
        speed = speed_of(trial)
        if isinstance(count, int) and speed is not None:
            rest = " + ".join(_named(part) for part in trial.plan if part.technique != THREADS)
            found[rest or "threads alone"][count] = speed
    several = [(name, sorted(speeds.items())) for name, speeds in found.items() if len(speeds) > 1]
    yield from sorted(several, key=lambda sweep: -max(speed.value for _, speed in sweep[1]))[:MOST_SWEEPS]


def _named(part: TechniqueDocument) -> str:
    chosen = ", ".join(f"{key}={value}" for key, value in part.settings.items() if value not in ("", None))
    return f"{part.technique}({chosen})" if chosen else part.technique


def _break_even(document: ResultDocument) -> str:
    if document.status is not Status.FASTER:
        return "Nothing has to pay for itself: the original was kept."
    if document.break_even_calls is None:
        return "Break-even: never, for no time is saved a call."
    return f"Break-even: {plural(document.break_even_calls, 'call')} pay for building, loading and the first call."


def _worse(costs: list[Cost]) -> str:
    grown = [
        cost.name for cost in costs if cost.before is not None and cost.after is not None and cost.after > cost.before
    ]
    return f"Costs more than the original's: {', '.join(grown)}." if grown else ""


def _swept(sweeps: list[Sweep]) -> str:
    return "" if sweeps else "No sweep over threads: no plan was timed with several counts of them."


def _batches(document: ResultDocument) -> Iterator[str]:
    """What preparing a throughput found about batches, in its own words."""
    told = [note for note in document.notes if note.startswith("throughput is measured with")]
    yield from (f"Sweep over batches: {note}." for note in told)
    if not told:
        yield "No sweep over batches: only the objective throughput makes one."


def _drawing(costs: list[Cost]) -> Markup:
    parts, top = [], 8.0
    for cost in costs:
        values = [value for value in (cost.before, cost.after) if value is not None]
        factor, unit = time_unit(values) if cost.is_time else byte_unit(values)
        scale = linear([value * factor for value in values], LABELS + 6, 390, include=(0,))
        rows = [
            Bar(f"{cost.name}, {name}" if name == "original" or cost.before is None else name,
                None if value is None else value * factor,
                "not recorded" if value is None else f"{number(value * factor)} {unit}", class_)
            for name, class_, value in (("original", "original", cost.before), ("delivered", "winner", cost.after))
            if value is not None or name == "delivered"
        ]  # fmt: skip
        parts.append(chart.bars(rows, scale, top, LABELS))
        top += 16 * len(rows) + 9
    told = "; ".join(row for cost in costs for row in _told(cost))
    parts.append(svg.line(LABELS + 6, 6, LABELS + 6, top - 7, "axis"))
    parts.append(svg.text(LABELS + 6, top + 7, "MEASURED; each cost has its own scale from zero", "title"))
    return svg.drawing(KEY, TITLE, told, chart.WIDTH, top + 14, *parts)


def _told(cost: Cost) -> Iterator[str]:
    for name, value in (("original", cost.before), ("delivered", cost.after)):
        if value is not None:
            factor, unit = time_unit([value]) if cost.is_time else byte_unit([value])
            yield f"{cost.name}, {name}: {number(value * factor)} {unit}"


def _threads(sweeps: list[Sweep]) -> Markup:
    styles = (("circle", "winner"), ("square", "original"), ("triangle", "front"), ("diamond", "overhead"))
    key, top = chart.legend([(*style, cut(name, 60)) for style, (name, _) in zip(styles, sweeps, strict=False)])
    counts = sorted({count for _, points in sweeps for count, _ in points})
    speeds = [end for _, points in sweeps for _, speed in points for end in (speed.value, speed.low, speed.high)]
    panel = Panel(logarithmic(counts, 52, 470), logarithmic([1.0, *speeds], top + 170, top + 18))
    drawn = []
    for (shape, class_), (name, points) in zip(styles, sweeps, strict=False):
        drawn.append(svg.path([(panel.x.at(n), panel.y.at(speed.value)) for n, speed in points], f"{class_} curve"))
        drawn += [
            svg.hover(f"{name}, {plural(n, 'thread')}: {interval(speed, unit='x')}",
                      panel.upward(speed.low, speed.high, n, "arm"),
                      svg.marker(shape, panel.x.at(n), panel.y.at(speed.value), class_))
            for n, speed in points
        ]  # fmt: skip
    bottom = top + 170
    return svg.drawing(
        "threads",
        "Speed-up by count of threads",
        "; ".join(f"{name}: " + ", ".join(f"{n} {number(s.value)}x" for n, s in points) for name, points in sweeps),
        chart.WIDTH,
        bottom + 34,
        key,
        panel.axes(
            "threads",
            "speed-up over the original in the race, times (MEASURED)",
            x_text=lambda count: str(int(count)) if count in counts else "",
        ),
        *drawn,
    )


def _table(costs: list[Cost]) -> Table:
    rows: list[tuple[str | Cell, ...]] = []
    for cost in costs:
        values = [value for value in (cost.before, cost.after) if value is not None]
        factor, unit = time_unit(values) if cost.is_time else byte_unit(values)
        shown = (
            Cell("not recorded" if v is None else f"{number(v * factor)} {unit}") for v in (cost.before, cost.after)
        )
        rows.append((cost.name, *shown))
    return table(("cost (MEASURED)", "original", "delivered"), rows)


def _sweep_table(sweeps: list[Sweep]) -> Table:
    rows: list[tuple[str | Cell, ...]] = [
        (name, Cell(str(count), count), Cell(interval(speed), speed.value))
        for name, points in sweeps
        for count, speed in points
    ]
    return table(("plan besides its threads", "threads", "speed-up, x [95%], MEASURED in the race"), rows)
