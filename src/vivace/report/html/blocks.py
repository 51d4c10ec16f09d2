"""The ratio of each block of a confirmation in time order, with the strip of the original against itself beneath."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from vivace.core.measurement import Comparison
from vivace.report.html import chart, svg
from vivace.report.html.scale import Scale, logarithmic
from vivace.report.html.words import interval, number, plural, tick

NEAR = 1.3


def drawn(other: str, found: Comparison, same: Sequence[float], noise_floor: float) -> Markup:
    """The ratio of each block of a confirmation, the original over the `other`, above those of the original over itself
    (`same`), which give the noise floor as a share."""
    restarts = [list(restart) for restart in found.ratios]
    ratios, speedup = [ratio for restart in restarts for ratio in restart], found.speedup
    upper = _strip(ratios, (speedup.low, speedup.high), (150, 34), "winner", f"the original over {other}, times")
    noise = 1 + max(noise_floor, 0.0)
    lower = _strip(same, (1 / noise, noise), (272, 196), "original", "A/A: the original over itself, times")
    count = max(len(ratios), len(same))
    return svg.drawing(
        "blocks",
        "Ratio of each block in time order",
        f"{len(ratios)} blocks, speed-up {interval(speedup)}; beneath, {len(same)} blocks of the original against "
        f"itself, noise floor {noise_floor:.1%}.",
        chart.WIDTH,
        306,
        upper,
        *_restarts(restarts),
        lower,
        svg.text(
            261,
            302,
            f"block in time order (each strip has its own scale; {plural(count, 'block')} at most)",
            "title",
            "middle",
        ),
    )


def _strip(
    ratios: Sequence[float], band: tuple[float, float], sides: tuple[float, float], class_: str, title: str
) -> Markup:
    """One row of dots with its band; the ends of a band that dwarfs the dots lie beyond the scale."""
    bottom, top = sides
    head = svg.text(4, top - 19 if class_ == "winner" else top - 8, title, "title")
    if not ratios:
        return svg.join(head, svg.text(261, (top + bottom) / 2, "not in this result", "why", "middle"))
    x, y = _places(len(ratios)), logarithmic([*ratios, *_near((1.0, *band), ratios)], bottom, top)
    low, high = y.at(band[0]), y.at(band[1])
    return svg.join(
        head,
        svg.rectangle(52, high, 418, low - high, "band"),
        *(svg.line(52, y.at(v), 470, y.at(v), "grid") for v in y.ticks(5)),
        *(svg.text(47, y.at(v) + 4, tick(v), "tick", "end") for v in y.ticks(5)),
        *([svg.line(52, y.at(1.0), 470, y.at(1.0), "one")] if y.holds(1.0) else []),
        svg.line(52, bottom, 470, bottom, "axis"),
        svg.line(52, top, 52, bottom, "axis"),
        *(_block(place, ratio, x, y, class_) for place, ratio in enumerate(ratios)),
        *(svg.text(x.at(v), bottom + 12, f"{v + 1:.0f}", "tick", "middle") for v in _numbers(len(ratios))),
    )


def _block(place: int, ratio: float, x: Scale, y: Scale, class_: str) -> Markup:
    tip = f"block {place + 1}: {number(ratio)}x"
    return svg.hover(tip, svg.marker("circle", x.at(place), y.at(ratio), class_, 2.2))


def _near(values: Sequence[float], ratios: Sequence[float]) -> list[float]:
    """Those of the values that are near enough to the dots not to flatten them."""
    found = [ratio for ratio in ratios if 0 < ratio < math.inf] or [1.0]
    return [value for value in values if min(found) / NEAR <= value <= max(found) * NEAR]


def _places(count: int) -> Scale:
    return Scale(-0.5, max(count, 1) - 0.5, 52, 470)


def _numbers(count: int) -> list[int]:
    step = max(1, -(-count // 8))
    return list(range(0, count, step))


def _restarts(restarts: list[list[float]]) -> list[Markup]:
    """A line between pairs of processes, each with its number."""
    scale, begun, parts = _places(sum(map(len, restarts))), 0, []
    for place, restart in enumerate(restarts, 1):
        x = scale.at(begun - 0.5)
        parts += [svg.line(x, 22, x, 150, "between")] if begun else []
        parts += [svg.text(x + 4, 29, f"pair {place}", "tick")] if len(restarts) <= 8 else []
        begun += len(restart)
    return parts
