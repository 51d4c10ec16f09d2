"""What charts are made of: a panel with its axes, legends, intervals, rows of bars, and labels that do not overlap."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from markupsafe import Markup

from vivace.report.html import svg
from vivace.report.html.scale import Scale
from vivace.report.html.words import number, tick

WIDTH = 480.0
LINE = 13.0
CAP = 2.5


@dataclasses.dataclass(frozen=True)
class Panel:
    """A rectangle with a scale along its bottom and one along its left side."""

    x: Scale
    y: Scale

    def axes(
        self,
        x_title: str,
        y_title: str,
        x_text: Callable[[float], str] = tick,
        y_text: Callable[[float], str] = tick,
        most: int = 7,
        has_x: bool = True,
    ) -> Markup:
        """Grid, ticks with their values, and titles, which name the units; without `has_x` none along x."""
        left, right, bottom, top = self.x.start, self.x.end, self.y.start, self.y.end
        places = self.x.ticks(most) if has_x else []
        down = (svg.line(x, top, x, bottom, "grid") for x in map(self.x.at, places))
        across = (svg.line(left, y, right, y, "grid") for y in map(self.y.at, self.y.ticks(most)))
        return svg.join(
            *down,
            *across,
            svg.line(left, bottom, right, bottom, "axis"),
            svg.line(left, top, left, bottom, "axis"),
            *(svg.text(self.x.at(v), bottom + LINE, x_text(v), "tick", "middle") for v in places),
            *(svg.text(left - 5, self.y.at(v) + 4, y_text(v), "tick", "end") for v in self.y.ticks(most)),
            svg.text((left + right) / 2, bottom + 2.2 * LINE, x_title, "title", "middle"),
            svg.text(4, top - 10, y_title, "title"),
        )

    def across(self, low: float, high: float, y: float, class_: str) -> Markup:
        """An interval along x, with caps; an end beyond the panel has none."""
        return _interval(self.x, low, high, lambda a: (a, self.y.at(y)), class_)

    def upward(self, low: float, high: float, x: float, class_: str) -> Markup:
        """An interval along y, with caps."""
        return _interval(self.y, low, high, lambda a: (self.x.at(x), a), class_)


def _interval(scale: Scale, low: float, high: float, at: Callable[[float], tuple[float, float]], class_: str) -> Markup:
    one, other = at(scale.at(low)), at(scale.at(high))
    is_flat = one[1] == other[1]
    dx, dy = (0.0, CAP) if is_flat else (CAP, 0.0)
    caps = [point for point, value in ((one, low), (other, high)) if scale.holds(value)]
    return svg.join(
        svg.line(*one, *other, class_), *(svg.line(x - dx, y - dy, x + dx, y + dy, class_) for x, y in caps)
    )


def rows_to(bottom: float) -> Scale:
    """The scale of a panel whose rows are placed by hand: its values are places on the drawing."""
    return Scale(0, bottom, 0, bottom)


def rules(scale: Scale, bottom: float, title: str, most: int, top: float = 22.0, is_ratio: bool = True) -> Markup:
    """What stands behind rows: a line at each tick, and of ratios at one, and the axis below with its title."""
    ticks = scale.ticks(most)
    is_marked = is_ratio and scale.holds(1.0)
    one = [svg.line(scale.at(1.0), top, scale.at(1.0), bottom, "one")] if is_marked else []
    return svg.join(
        *(svg.line(scale.at(v), top, scale.at(v), bottom, "grid") for v in ticks),
        *one,
        svg.line(scale.start, bottom, scale.end, bottom, "axis"),
        *(svg.text(scale.at(v), bottom + LINE, number(v), "tick", "middle") for v in ticks),
        svg.text((scale.start + scale.end) / 2, bottom + 28, title, "title", "middle"),
    )


def legend(entries: Sequence[tuple[str, str, str]], y: float = 11.0, width: float = WIDTH) -> tuple[Markup, float]:
    """Shape, class and words of each entry in lines from `y` on, and where what comes next may begin."""
    parts, x = [], 8.0
    for shape, class_, words in entries:
        needed = 22 + svg.width_of(words)
        if x > 8 and x + needed > width:
            x, y = 8.0, y + LINE + 2
        sign = svg.line(x - 5, y - 4, x + 7, y - 4, class_) if shape == "line" else svg.marker(shape, x, y - 4, class_)
        parts += [sign, svg.text(x + 11, y, words, "key")]
        x += needed
    return svg.join(*parts), y + LINE


@dataclasses.dataclass(frozen=True)
class Bar:
    """One row: its label, a value with its text, and the class of its bar. None has no bar, and its text says why."""

    label: str
    value: float | None
    words: str
    class_: str
    tip: str = ""


def bars(rows: Sequence[Bar], scale: Scale, top: float, label_width: float, width: float = WIDTH) -> Markup:
    """Rows of bars from the scale's start, each with its label at the left and its value at the end."""
    return svg.join(*(_bar(row, scale, top + place * 16, label_width, width) for place, row in enumerate(rows)))


def _bar(row: Bar, scale: Scale, top: float, label_width: float, width: float) -> Markup:
    end = scale.start if row.value is None else scale.at(row.value)
    is_far = end + 6 + svg.width_of(row.words) > width
    value = svg.text(end - 5 if is_far else end + 5, top + 10, row.words, "inside" if is_far else "value",
                     "end" if is_far else None)  # fmt: skip
    drawn = [] if row.value is None else [svg.rectangle(scale.start, top + 1, end - scale.start, 11, row.class_)]
    label = svg.text(label_width, top + 10, row.label, "label", "end")
    return svg.hover(row.tip or f"{row.label}: {row.words}", label, *drawn, value)


Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""
Named = tuple[float, float, tuple[str, ...]]
"""x, y, and the words to be put there, the longest first."""


def labels(points: Sequence[Named], panel: Panel, obstacles: Sequence[Box] = ()) -> Markup:
    """A label beside each point: the longest words that find room beside the obstacles, else the shortest over them.

    Labels never cover each other; a point without one is told by its hover value and the table. The first come first.
    """
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y, _ in points]
    parts = []
    for x, y, words in points:
        tries = [*((one, (*taken, *obstacles)) for one in words), (words[-1], taken)]
        found = next((place for one, boxes in tries if (place := _room(x, y, one, panel, boxes))), None)
        if found is not None:
            left, base, one = found
            taken.append((left, base - 10, left + svg.width_of(one), base + 2))
            parts.append(svg.text(left, base, one, "name"))
    return svg.join(*parts)


def _room(x: float, y: float, words: str, panel: Panel, taken: Sequence[Box]) -> tuple[float, float, str] | None:
    """Where words about a point may begin so that they cover nothing that is taken."""
    width = svg.width_of(words)
    right, left, centred = x + 8, x - 8 - width, x - width / 2
    places = ((right, y + 4), (left, y + 4), (centred, y - 9), (centred, y + 17),
              (right, y - 8), (left, y - 8), (right, y + 16), (left, y + 16))  # fmt: skip
    for start, base in places:
        box = (start, base - 10, start + width, base + 2)
        inside = panel.x.start <= box[0] and box[2] <= WIDTH and panel.y.end - 4 <= box[1] and box[3] <= panel.y.start
        if inside and not any(_overlap(box, other) for other in taken):
            return start, base, words
    return None


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
