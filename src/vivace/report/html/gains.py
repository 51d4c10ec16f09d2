"""Figure 2: the winner built up technique by technique, and what leaving each of them out costs."""

from __future__ import annotations

from markupsafe import Markup

from vivace.core.measurement import Interval
from vivace.report.html import chart, svg
from vivace.report.html.chart import Panel
from vivace.report.html.figure import Cell, Figure, Table, absent, table
from vivace.report.html.scale import logarithmic
from vivace.report.html.words import cut, interval, number, plural
from vivace.report.results import AttributionDocument, LeftOutDocument, ResultDocument, StepDocument

NUMBER, KEY, TITLE = 2, "gains", "What each technique is worth"
ROW = 34.0
LEFT, MIDDLE, BETWEEN, RIGHT = 12.0, 280.0, 318.0, 446.0


def figure(document: ResultDocument) -> Figure:
    """The waterfall beside the leave-one-outs, or why there is none."""
    found = document.attribution
    if found is None:
        why = "the original was kept" if not document.plan else "this result holds no attribution"
        return absent(NUMBER, KEY, TITLE, f"There is nothing to attribute: {why}.")
    if not found.steps:
        return absent(NUMBER, KEY, TITLE, "There is nothing to attribute: the winner has no technique.")
    return Figure(
        NUMBER,
        KEY,
        TITLE,
        _said(found),
        (_drawing(document, found),),
        ", ".join(f"{_name(step)}: {plural(step.restarts, 'pair')}" for step in found.steps) + " of fresh processes",
        "left: the plan up to and including each technique against the original (a bar from the step before, 95% "
        "interval); right: the winner over the winner without it. Intervals of one pair of processes say nothing of "
        "what another pair would find. Techniques act together: neither side multiplies to the whole",
        "MEASURED; speed-up, times",
        (_table(found),),
    )


def _said(found: AttributionDocument) -> str:
    slower = [_name(part) for part in found.left_out if part.worth is not None and part.worth.high < 1]
    unsure = [
        _name(part) for part in found.left_out if part.worth is not None and part.worth.low <= 1 <= part.worth.high
    ]
    told = [f"The winner would be faster without {', '.join(slower)}."] if slower else []
    told += [f"UNDECIDED, the interval holds 1: {', '.join(unsure)}."] if unsure else []
    return " ".join(told) or "No technique was found to cost time."


def _drawing(document: ResultDocument, found: AttributionDocument) -> Markup:
    steps, bottom = found.steps, 52 + ROW * len(found.steps)
    speeds = [v for part in steps if part.speedup for v in (part.speedup.value, part.speedup.low, part.speedup.high)]
    worths = [v for part in found.left_out if part.worth for v in (part.worth.value, part.worth.low, part.worth.high)]
    left = Panel(logarithmic([1.0, *speeds], LEFT, MIDDLE), chart.rows_to(bottom))
    right = Panel(logarithmic([1.0, *worths], BETWEEN, RIGHT), chart.rows_to(bottom))
    named = "; ".join(f"with {_name(step)} {interval(step.speedup)}" for step in steps)
    return svg.drawing(
        KEY,
        TITLE,
        f"Speed-up over the original, step by step: {named}.",
        chart.WIDTH,
        bottom + 34,
        svg.text(LEFT, 14, "built up: speed-up over the original", "title"),
        svg.text(BETWEEN, 14, "the winner with / without it", "title"),
        chart.rules(left.x, bottom, "times, MEASURED", 6),
        chart.rules(right.x, bottom, "times, MEASURED", 4),
        svg.text(LEFT, 36, "original: 1x", "name"),
        *_waterfall(left, steps),
        *_left_out(right, found.left_out),
    )


def _waterfall(panel: Panel, steps: list[StepDocument]) -> list[Markup]:
    parts, before = [], 1.0
    for place, step in enumerate(steps):
        top = 44 + ROW * place + 8
        label = svg.text(LEFT + 2, top + 6, f"+ {cut(_name(step), 44)}", "name")
        if step.speedup is None:
            parts.append(svg.hover(step.reason, label, svg.text(LEFT + 2, top + 20, _why(step.reason, 44), "why")))
            continue
        tip = f"with {_name(step)}: {interval(step.speedup, unit='x')}, {plural(step.restarts, 'pair')} of processes"
        parts.append(svg.hover(tip, label, *_step(panel, before, step.speedup, top + 10)))
        before = step.speedup.value
    return parts


def _step(panel: Panel, before: float, speedup: Interval, top: float) -> list[Markup]:
    start, end = sorted((panel.x.at(before), panel.x.at(speedup.value)))
    kind = "gain" if speedup.value >= before else "loss"
    words = f"{number(speedup.value)}x" if kind == "gain" else f"{number(speedup.value)}x slower"
    edge = max(end, panel.x.at(speedup.high)) + 5
    is_far = edge + svg.width_of(words) > MIDDLE + 26
    where = min(start, panel.x.at(speedup.low)) - 5 if is_far else edge
    return [
        svg.rectangle(start, top, end - start, 11, kind),
        panel.across(speedup.low, speedup.high, top + 5.5, "arm"),
        svg.text(where, top + 10, words, "value", "end" if is_far else None),
    ]


def _left_out(panel: Panel, parts: list[LeftOutDocument]) -> list[Markup]:
    drawn = []
    for place, part in enumerate(parts):
        y = 44 + ROW * place + 23.5
        if part.worth is None:
            drawn.append(svg.hover(part.reason, svg.text(BETWEEN, y + 4, _why(part.reason, 28), "why")))
            continue
        tip = f"with / without {_name(part)}: {interval(part.worth, unit='x')}"
        drawn.append(
            svg.hover(
                tip,
                panel.across(part.worth.low, part.worth.high, y, "arm"),
                svg.marker("square", panel.x.at(part.worth.value), y, "winner"),
                svg.text(panel.x.at(part.worth.value), y - 7, f"{number(part.worth.value)}x", "value", "middle"),
            )
        )
    return drawn


def _table(found: AttributionDocument) -> Table:
    rows: list[tuple[str | Cell, ...]] = [
        (
            _name(step),
            Cell(interval(step.speedup), step.speedup.value if step.speedup else None),
            Cell(interval(part.worth), part.worth.value if part.worth else None),
            "; ".join(dict.fromkeys(reason for reason in (step.reason, part.reason) if reason)),
        )
        for step, part in zip(found.steps, found.left_out, strict=False)
    ]
    return table(("technique", "so far, x [95%], MEASURED", "with / without it, x [95%], MEASURED", "why not"), rows)


def _name(part: StepDocument) -> str:
    """The technique with its settings."""
    settings = ", ".join(f"{key}={value}" for key, value in part.technique.settings.items() if value not in ("", None))
    return f"{part.technique.technique}({settings})" if settings else part.technique.technique


def _why(reason: str, most: int) -> str:
    return cut(f"not measured: {reason}" if reason else "not measured", most)
