"""Figure 8: several processes beside one, by what was timed and by the laws; who held what, and who started again."""

from __future__ import annotations

from markupsafe import Markup

from vivace.core.training.run import Scaling
from vivace.devices.scaling import amdahl, gustafson
from vivace.report.html import chart, svg
from vivace.report.html.chart import Panel
from vivace.report.html.figure import Cell, Figure, Table, absent, table
from vivace.report.html.scale import linear
from vivace.report.html.words import LONG, cut, interval, number, plural, time_unit
from vivace.report.training import TrainingDocument
from vivace.report.training_page.laws import scaling_words, serial_of
from vivace.report.wording import show_bytes

NUMBER, KEY, TITLE = 8, "processes", "Several processes beside one"
LEFT, RIGHT, HEIGHT = 44.0, 440.0, 190.0
LEGEND = (("line", "one", "ideal"), ("line", "original curve", "Amdahl"), ("line", "winner curve", "Gustafson"))
MARK = ("circle", "dominated", "measured, 95% interval")


def figure(document: TrainingDocument) -> Figure:
    """Speed-ups by the number of processes with the laws, the ranks and their restarts; or why there are none."""
    found = document.scaling
    if found is None and not document.ranks and not document.restarts:
        return absent(NUMBER, KEY, TITLE, "One process trained, and no others were asked for (--processes).")
    tables = [
        *([_counts(found)] if found is not None else []),
        *([_ranks(document)] if document.ranks else []),
        *([_restarts(document)] if document.restarts else []),
    ]
    counted = [
        *([plural(max(1, len(found.counts)), "layout") + " timed"] if found is not None else []),
        plural(len(document.ranks), "rank"),
        plural(len(document.restarts), "restart"),
    ]
    return Figure(
        NUMBER,
        KEY,
        TITLE,
        _said(document),
        (_drawing(found),) if found is not None else (),
        "; ".join(counted),
        "the original's step on so many processes against the same step in one, all of them at work, in blocks of ABBA "
        "where the plan was searched for. The serial part holds waiting and what is exchanged too. A rank's parameters "
        "and optimizer state are its own parts at the end; its peak is the highest of its whole process",
        "MEASURED; speed-up of a step over one process, times; bytes",
        tuple(tables),
        is_wide=bool(document.ranks),
    )


def _said(document: TrainingDocument) -> str:
    found = document.scaling
    told = []
    if found is None:
        told.append("How fast one process is beside these was not timed.")
    else:
        told.append(f"{scaling_words(found)[0].upper()}{scaling_words(found)[1:]}.")
        if not document.ranks:
            told.append("So one process trained.")
        elif found.speedup <= 1:
            told.append("They trained since they were asked for: one process would have been faster.")
    told += [f"They started again {plural(len(document.restarts), 'time')}."] if document.restarts else []
    return " ".join(told)


def _drawing(found: Scaling) -> Markup:
    serial = serial_of(found)
    points = [(one.processes, one.speedup.value, one.speedup.low, one.speedup.high) for one in found.counts]
    points = points or [(found.processes, found.speedup, found.speedup, found.speedup)]
    most = max(2, *(count for count, *_ in points))
    entries = LEGEND if serial is not None else LEGEND[:1]
    key, top = chart.legend((MARK, *entries))
    x = linear([1.0, float(most)], LEFT, RIGHT, include=(1.0,))
    y = linear([0.0, 1.0, float(most), *(high for *_, high in points)], top + HEIGHT, top + 14, include=(0.0,))
    panel = Panel(x, y)
    marks = [
        svg.hover(
            f"{count} processes: {number(value)}x",
            panel.upward(low, high, x.at(count), "arm"),
            svg.marker("circle", x.at(count), y.at(value), "dominated"),
        )
        for count, value, low, high in points
    ]
    drawn = [svg.line(x.at(1), y.at(1), x.at(most), y.at(most), "one")]
    if serial is not None:
        counts = [1 + step * (most - 1) / 40 for step in range(41)]
        drawn.append(svg.path([(x.at(n), y.at(amdahl(min(1.0, serial.amdahl), n))) for n in counts], "original curve"))
        drawn.append(
            svg.path([(x.at(n), y.at(gustafson(min(1.0, serial.gustafson), n))) for n in counts], "winner curve")
        )
    told = "; ".join(f"{count} processes {number(value)} times" for count, value, *_ in points)
    axes = panel.axes("processes", "speed-up over one process, times (MEASURED)", most=min(8, most))
    return svg.drawing(KEY, TITLE, told, chart.WIDTH, top + HEIGHT + 34, key, axes, *drawn, *marks)


def _counts(found: Scaling) -> Table:
    seconds = [found.one_seconds, found.step_seconds]
    factor, unit = time_unit([*seconds, *(one.step_seconds for one in found.counts)])
    columns = ("layout", "processes", f"step, {unit}", f"of one process beside it, {unit}", "speed-up, x [95%]")
    rows: list[tuple[str | Cell, ...]] = [
        (
            one.layout,
            Cell(str(one.processes), one.processes),
            Cell(number(one.step_seconds * factor), one.step_seconds),
            Cell(number(one.one_seconds * factor), one.one_seconds),
            Cell(interval(one.speedup), one.speedup.value),
        )
        for one in found.counts
    ]
    if not rows:
        cells = (Cell(number(value * factor), value) for value in (found.step_seconds, found.one_seconds))
        rows = [("as it trained", Cell(str(found.processes), found.processes), *cells,
                 Cell(f"{number(found.speedup)}, one after the other", found.speedup))]  # fmt: skip
    return table(columns, rows, "MEASURED: layouts beside one process")


def _ranks(document: TrainingDocument) -> Table:
    columns = ("rank", "place on the mesh", "threads", "parameters", "optimizer state", "peak memory")
    rows: list[tuple[str | Cell, ...]] = [
        (
            Cell(str(one.rank), one.rank),
            cut(", ".join(f"{axis} {place}" for axis, place in one.place.items()) or "alone"),
            Cell(str(one.threads), one.threads),
            *(Cell(show_bytes(size), size) for size in (one.parameter_bytes, one.optimizer_bytes, one.peak_bytes)),
        )
        for one in document.ranks
    ]
    return table(columns, rows, "MEASURED: what each rank held at the end")


def _restarts(document: TrainingDocument) -> Table:
    rows = [(str(count), cut(reason, LONG)) for count, reason in enumerate(document.restarts, 1)]
    return table(("restart", "why all ranks started again from the last checkpoint"), rows, "restarts")
