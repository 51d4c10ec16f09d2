"""Figure 1: time against loss of quality, the budget, and which plans no other plan beats in both."""

from __future__ import annotations

import dataclasses
import math

from markupsafe import Markup

from vivace.core.measurement import Interval, dominated
from vivace.core.quality import QualityVerdict
from vivace.report.candidates import Scored, margin_of, scored_by, seconds_of
from vivace.report.html import chart, svg
from vivace.report.html.chart import Panel
from vivace.report.html.figure import Cell, Figure, Table, absent, table
from vivace.report.html.scale import fitting, linear
from vivace.report.html.words import cut, interval, number, plural, time_unit
from vivace.report.results import ResultDocument, TrialDocument

NUMBER, KEY, TITLE = 1, "front", "Time against loss of quality"
NAMED = 12
SHAPES = {QualityVerdict.HELD: "circle", QualityVerdict.CANNOT_TELL: "square", QualityVerdict.NOT_HELD: "triangle"}
BEYOND, ROOM = 2.5, 1.25
"""Losses above this many budgets lie at the edge of the drawing."""
LEGEND = (
    ("diamond", "original", "original"),
    ("circle", "winner", "delivered"),
    ("circle", "front", "on the front, HELD"),
    ("square", "front", "CANNOT TELL"),
    ("triangle", "front", "NOT HELD"),
    ("circle", "front hollow", "hollow: race only"),
    ("circle", "dominated", "grey: dominated"),
)


@dataclasses.dataclass(frozen=True)
class Point:
    """One candidate: its number, time in seconds, and loss with its upper bound in the score's unit."""

    number: int
    trial: TrialDocument
    seconds: Interval
    loss: float
    upper: float | None
    is_dominated: bool
    is_winner: bool

    @property
    def name(self) -> str:
        return f"#{self.number} {self.trial.plan_name}"

    @property
    def class_(self) -> str:
        if self.is_winner:
            return "winner"
        kind = "dominated" if self.is_dominated else "front"
        return kind if self.trial.confirmed else f"{kind} hollow"


def figure(document: ResultDocument) -> Figure:
    """The front, or why there is none."""
    scored = scored_by(document)
    points = points_of(document, scored)
    if not points:
        return absent(NUMBER, KEY, TITLE, _nothing(document))
    front = [point for point in points if not point.is_dominated]
    confirmed = sum(point.trial.confirmed is not None for point in points)
    held = "; ".join(cut(point.name, 90) for point in front[:NAMED]) or "none, for the original dominates every plan"
    more = f"; and {len(front) - NAMED} more" if len(front) > NAMED else ""
    return Figure(
        NUMBER,
        KEY,
        TITLE,
        f"Plans that no other, nor the original, beats in both: {held}{more}.",
        (_drawing(document, points, scored),),
        f"{plural(len(points), 'plan')} with a time and a quality, {confirmed} of them confirmed",
        "time: the confirmed original's median divided by the paired speed-up, 95% interval; "
        f"{scored.title}: point estimate and one-sided 95% upper bound, so the cross has no lower arm. What lost "
        f"more than {BEYOND:g} budgets may lie at the upper edge. Dominated by point estimates; race figures only rank",
        f"MEASURED; time of one call, {scored.unit}",
        (_table(points, scored),),
    )


def points_of(document: ResultDocument, scored: Scored) -> list[Point]:
    """Every candidate that has a time and a loss; the original, without a loss, can dominate too."""
    found = [
        (number, trial, seconds, loss)
        for number, trial in enumerate(document.candidates, 1)
        if (seconds := seconds_of(document, trial)) is not None and (loss := scored.of(trial.quality)) is not None
    ]
    original = (document.comparison.baseline.median_seconds, 0.0)
    beaten = dominated([*((seconds.value, loss[0]) for _, _, seconds, loss in found), original])
    return [
        Point(number, trial, seconds, *loss, is_beaten, bool(document.plan) and trial.plan == document.plan)
        for (number, trial, seconds, loss), is_beaten in zip(found, beaten, strict=False)
    ]


def _nothing(document: ResultDocument) -> str:
    if not document.candidates:
        return "There is no front: no plan was tried in the time allowed."
    return f"There is no front: none of {plural(len(document.candidates), 'plan')} has both a time and a quality."


def _drawing(document: ResultDocument, points: list[Point], scored: Scored) -> Markup:
    base, margin = document.comparison.baseline.median_seconds, margin_of(document)
    factor, unit = time_unit([base])
    limit = None if margin is None else margin * scored.factor
    key, top = chart.legend(LEGEND)
    times = [base * factor, *(point.seconds.value * factor for point in points)]
    panel = Panel(fitting(times, 52, 470), linear(_losses(points, limit), 316, top + 18))
    ordered = sorted(points, key=lambda point: (not point.is_dominated, point.is_winner))
    named = sorted((p for p in points if not p.is_dominated or p.is_winner), key=lambda p: not p.is_winner)[:NAMED]
    places: list[chart.Named] = [(panel.x.at(base * factor), panel.y.at(0), ("original",))]
    places += [
        (panel.x.at(p.seconds.value * factor), panel.y.at(p.loss), (cut(p.name, 30), f"#{p.number}")) for p in named
    ]
    shown = ", ".join(point.name for point in named)
    return svg.drawing(
        KEY,
        TITLE,
        f"{len(points)} plans by time of a call ({unit}) and {scored.title} ({scored.unit}). On the front: {shown}.",
        chart.WIDTH,
        352,
        key,
        panel.axes(f"time of one call, {unit} (MEASURED)", f"{scored.title}, {scored.unit}"),
        _budget(panel, limit, scored),
        *(_point(panel, point, factor, unit, scored) for point in ordered),
        svg.hover(
            f"the original: {number(base * factor)} {unit}, the reference of every loss",
            svg.marker("diamond", panel.x.at(base * factor), panel.y.at(0), "original"),
        ),
        chart.labels(places, panel, _obstacles(panel, points, factor)),
    )


def _losses(points: list[Point], limit: float | None) -> list[float]:
    """What the axis of losses must hold. What lost far more than the budget would flatten all else: it is left out."""
    front = [end for p in points if not p.is_dominated or p.is_winner for end in (p.loss, p.upper) if end is not None]
    most = math.inf if limit is None else max(BEYOND * limit, *(point.loss for point in points if point.is_winner), 0.0)
    kept = [loss for loss in (*front, *(point.loss for point in points)) if loss <= most]
    return [0.0, *kept, *([ROOM * limit] if limit is not None else [])]


def _obstacles(panel: Panel, points: list[Point], factor: float) -> list[chart.Box]:
    """Where points and their arms are, so that no label covers them."""
    boxes = []
    for point in points:
        x, y = panel.x.at(point.seconds.value * factor), panel.y.at(point.loss)
        boxes.append((x - 4, y - 4, x + 4, y + 4))
        if not point.is_dominated or point.is_winner:
            low, high = (panel.x.at(end * factor) for end in (point.seconds.low, point.seconds.high))
            boxes.append((low, y - 3, high, y + 3))
            boxes += [] if point.upper is None else [(x - 3, panel.y.at(point.upper), x + 3, y)]
    return boxes


def _budget(panel: Panel, limit: float | None, scored: Scored) -> Markup:
    if limit is None:
        return Markup()
    y = panel.y.at(limit)
    words = f"budget {number(limit)} {'pp' if scored.unit == 'percentage points' else scored.unit}"
    return svg.join(
        svg.line(panel.x.start, y, panel.x.end, y, "limit"), svg.text(panel.x.end, y - 4, words, "limit-text", "end")
    )


def _point(panel: Panel, point: Point, factor: float, unit: str, scored: Scored) -> Markup:
    x, y = point.seconds.value * factor, point.loss
    arms = []
    if not point.is_dominated or point.is_winner:
        arms.append(panel.across(point.seconds.low * factor, point.seconds.high * factor, y, "arm"))
        arms += [panel.upward(y, point.upper, x, "arm")] if point.upper is not None else []
    bound = "" if point.upper is None else f", at most {number(point.upper)}"
    tip = f"{point.name}: {interval(point.seconds, factor)} {unit}; loss {number(y)}{bound} {scored.unit}"
    size = 5.0 if point.is_winner else 2.8 if point.is_dominated else 3.8
    return svg.hover(tip, *arms, svg.marker(_shape(point.trial), panel.x.at(x), panel.y.at(y), point.class_, size))


def _shape(trial: TrialDocument) -> str:
    return "cross" if trial.quality is None else SHAPES[trial.quality.verdict]


def _table(points: list[Point], scored: Scored) -> Table:
    factor, unit = time_unit([point.seconds.value for point in points])
    rows: list[tuple[str | Cell, ...]] = [
        (
            Cell(f"#{point.number}", point.number),
            point.trial.plan_name,
            Cell(interval(point.seconds, factor), point.seconds.value),
            Cell(number(point.loss), point.loss),
            Cell(number(point.upper), point.upper),
            point.trial.quality.verdict.value if point.trial.quality else "-",
            "confirmed" if point.trial.confirmed else "race",
            "dominated" if point.is_dominated else "on the front",
        )
        for point in points
    ]
    columns = ("#", "plan", f"time, {unit} [95%]", f"loss, {scored.unit}", "at most", "quality", "from", "")
    return table(columns, rows)
