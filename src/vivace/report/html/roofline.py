"""Figure 6: how near the program came to the machine's measured ceilings, layer by layer, and what bounds it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from markupsafe import Markup

from vivace.core.compute import Bound, Compute, Profile, Reach
from vivace.devices.roofline import bound_of, place
from vivace.report.html import chart, svg
from vivace.report.html.chart import Bar, Panel
from vivace.report.html.figure import Cell, Figure, Table, absent, table
from vivace.report.html.scale import linear, logarithmic
from vivace.report.html.words import cut, number, plural, show_seconds
from vivace.report.machinery import overhead_line
from vivace.report.results import ResultDocument
from vivace.report.wording import show_place

NUMBER, KEY, TITLE = 6, "roofline", "How near the machine's ceilings"
WORDS = {Bound.ARITHMETIC: "compute-bound", Bound.MEMORY: "memory-bound", Bound.OVERHEAD: "overhead-bound"}
NAMED = 6
LABELS = 150.0


@dataclasses.dataclass(frozen=True)
class Dot:
    """One operator with counted work: operations a byte, 10^9 operations a second, and what bounds it."""

    program: str
    class_: str
    shape: str
    name: str
    intensity: float
    gflops: float
    seconds: float
    bound: Bound | None


def figure(document: ResultDocument) -> Figure:
    """The roofline of what was profiled, the reach of whole calls, or why there is neither."""
    found = document.compute
    if found is None:
        return absent(NUMBER, KEY, TITLE, "There is no roofline: the work of a call was not counted in this result.")
    dots = _dots(document)
    drawings = [_reached(found)] if not dots else [_roofline(found, dots), _reached(found)]
    return Figure(
        NUMBER,
        KEY,
        TITLE,
        " ".join(part for part in _said(document, found, dots) if part),
        tuple(drawings),
        f"{plural(len(dots), 'operator')} with counted work; {number(found.flops / 1e6)} million operations a call",
        f"ceilings {found.ceilings}; rates are counted operations over MEASURED time. A dot: one operator, its bytes "
        "are weights read and activations read and written. An operator whose ceilings allow less than half of its "
        "time is overhead-bound (Williams, Waterman and Patterson 2009). A kernel with fewer operations than were "
        "counted can exceed a ceiling",
        "GFLOP/s: counted work over MEASURED time; operations a byte: counted",
        (_whole(document, found), *([_table(dots)] if dots else [])),
    )


def _said(document: ResultDocument, found: Compute, dots: list[Dot]) -> Iterator[str]:
    yield _told("The original", found.original)
    yield _told(_winner(document), found.winner)
    yield "" if found.overhead is None else f"Of a tiny call, {overhead_line(found)}."
    yield _counted(dots)


def _winner(document: ResultDocument) -> str:
    return "The delivered program" if document.plan else "The original's artifact"


def _told(name: str, reach: Reach) -> str:
    if reach.bound is None or reach.share is None:
        return f"{name}: its ceilings are not known, so nothing is said of what bounds it."
    return (
        f"{name} is {WORDS[reach.bound]}: its arithmetic and memory traffic need {reach.share:.0%} of its time at the "
        "measured ceilings." + ("" if reach.is_counted else " PREDICTED: its operations were not counted.")
    )


def _counted(dots: list[Dot]) -> str:
    if dots:
        return ""
    return "No dot per layer: no operator with counted operations and bytes was profiled."


def _dots(document: ResultDocument) -> list[Dot]:
    found, compute = document.profiles, document.compute
    if found is None or compute is None:
        return []
    both = (
        ("original", "diamond", found.original, compute.original),
        ("winner", "square", found.winner, compute.winner),
    )
    return [dot for name, shape, profile, reach in both if profile for dot in _of(name, shape, profile, reach)]


def _of(program: str, shape: str, profile: Profile, reach: Reach) -> list[Dot]:
    dots = []
    for one in profile.operators:
        if not one.flops or not one.moved_bytes or one.seconds <= 0:
            continue
        intensity, gflops = place(one.flops, one.moved_bytes, one.seconds)
        bound = None
        if reach.ceiling_gflops and reach.copy_gigabytes_per_second:
            bound = bound_of(
                one.flops, one.moved_bytes, one.seconds, reach.ceiling_gflops, reach.copy_gigabytes_per_second
            )
        name = "+".join(one.layers) or one.operator
        dots.append(Dot(program, program, shape, name, intensity, gflops, one.seconds, bound))
    return dots


def _roofline(found: Compute, dots: list[Dot]) -> Markup:
    roofs = _roofs(found)
    ridges = [peak / copy for _, _, peak, copy in roofs]
    key, top = chart.legend(
        [("diamond", "original", "operator of the original"), ("square", "winner", "operator of the delivered program"),
         *(("line", f"{class_} roof", words) for words, class_, _, _ in roofs)]
    )  # fmt: skip
    rates = [*(dot.gflops for dot in dots), *(peak for _, _, peak, _ in roofs)]
    panel = Panel(logarithmic([*(dot.intensity for dot in dots), *ridges], 52, 470), logarithmic(rates, 286, top + 18))
    longest = sorted(dots, key=lambda dot: -dot.seconds)[:NAMED]
    placed = [(panel.x.at(dot.intensity), panel.y.at(dot.gflops)) for dot in dots]
    places: list[chart.Named] = [
        (panel.x.at(dot.intensity), panel.y.at(dot.gflops), (cut(dot.name, 22),)) for dot in longest
    ]
    told = "; ".join(
        f"{dot.name} ({dot.program}) {number(dot.gflops)} GFLOP/s, {WORDS[dot.bound] if dot.bound else 'bound unknown'}"
        for dot in longest
    )
    return svg.drawing(
        KEY,
        TITLE,
        f"{len(dots)} operators below the measured ceilings. The longest: {told}.",
        chart.WIDTH,
        322,
        key,
        panel.axes("operations a byte moved (counted)", "GFLOP/s (counted work over MEASURED time)"),
        *(_roof(panel, class_, peak, copy) for _, class_, peak, copy in roofs),
        *(_dot(panel, dot) for dot in dots),
        chart.labels(places, panel, [(x - 4, y - 4, x + 4, y + 4) for x, y in placed]),
    )


def _roofs(found: Compute) -> list[tuple[str, str, float, float]]:
    """Words, class, GFLOP/s and GB/s of each arm whose ceilings were measured."""
    return [
        (f"ceilings, {name}: {number(one.ceiling_gflops)} GFLOP/s {one.precision}, "
         f"{number(one.copy_gigabytes_per_second)} GB/s, {show_place(one)}",
         class_, one.ceiling_gflops, one.copy_gigabytes_per_second)
        for name, class_, one in (
            ("original", "original", found.original), ("delivered", "winner", found.winner)
        )
        if one.ceiling_gflops and one.copy_gigabytes_per_second
    ]  # fmt: skip


def _roof(panel: Panel, class_: str, peak: float, copy: float) -> Markup:
    """The lower of both ceilings along the intensities shown."""
    x, y = panel.x, panel.y
    ridge = peak / copy
    begin = max(x.low, y.low / copy)
    points = [(begin, begin * copy), (ridge, peak), (x.high, peak)]
    return svg.path([(x.at(at), y.at(rate)) for at, rate in points if at >= begin], f"{class_} roof")


def _dot(panel: Panel, dot: Dot) -> Markup:
    bound = WORDS[dot.bound] if dot.bound else "its ceilings are not known"
    tip = (
        f"{dot.name} ({dot.program}): {number(dot.gflops)} GFLOP/s at {number(dot.intensity)} operations a byte, "
        f"{show_seconds(dot.seconds)}; {bound}"
    )
    return svg.hover(
        tip, svg.marker(dot.shape, panel.x.at(dot.intensity), panel.y.at(dot.gflops), f"{dot.class_} soft", 3.2)
    )


def _reached(found: Compute) -> Markup:
    """Whole calls: the rate that each program reached and the ceiling above it."""
    rows = []
    for name, class_, one in (("original", "original", found.original), ("delivered", "winner", found.winner)):
        rows.append(Bar(name, one.gflops, f"{number(one.gflops)}", class_))
        ceiling = f"{number(one.ceiling_gflops)} ({one.precision}, {show_place(one)})"
        words = ceiling if one.ceiling_gflops else f"not measured ({one.precision}, {show_place(one)})"
        rows.append(Bar(f"ceiling, {name}", one.ceiling_gflops, words, "overhead"))
    values = [row.value for row in rows if row.value is not None]
    scale = linear(values, LABELS + 6, 350, include=(0,))
    return svg.drawing(
        f"{KEY}-calls",
        "Rate of whole calls below the ceilings",
        "; ".join(f"{row.label} {row.words} GFLOP/s" for row in rows),
        chart.WIDTH,
        112,
        chart.bars(rows, scale, 8, LABELS),
        svg.line(scale.start, 6, scale.start, 76, "axis"),
        *(svg.text(scale.at(v), 88, number(v), "tick", "middle") for v in scale.ticks(5)),
        svg.text(
            (scale.start + scale.end) / 2,
            104,
            "GFLOP/s of a whole call (counted work over MEASURED time)",
            "title",
            "middle",
        ),
    )


def _whole(document: ResultDocument, found: Compute) -> Table:
    rows: list[tuple[str | Cell, ...]] = [
        (
            name,
            Cell(number(one.gflops), one.gflops),
            Cell(number(one.ceiling_gflops), one.ceiling_gflops),
            Cell(number(one.copy_gigabytes_per_second), one.copy_gigabytes_per_second),
            Cell("-" if one.share is None else f"{one.share:.1%}", one.share),
            f"{one.precision}, {show_place(one)}",
            WORDS[one.bound] if one.bound else "not known",
        )
        for name, one in (("original", found.original), (document.plan_name, found.winner))
    ]
    columns = ("whole call", "GFLOP/s", "ceiling, GFLOP/s", "copy, GB/s", "floor, share of the time", "at", "bound")
    return table(columns, rows)


def _table(dots: list[Dot]) -> Table:
    rows: list[tuple[str | Cell, ...]] = [
        (
            dot.program,
            cut(dot.name, 160),
            Cell(number(dot.intensity), dot.intensity),
            Cell(number(dot.gflops), dot.gflops),
            Cell(show_seconds(dot.seconds), dot.seconds),
            WORDS[dot.bound] if dot.bound else "not known",
        )
        for dot in dots
    ]
    return table(("program", "operator's layers", "operations a byte", "GFLOP/s", "time", "bound"), rows)
