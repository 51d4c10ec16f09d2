"""Figure 5: how much int8 harms each layer against the time that the layer takes, and what was kept in a higher one."""

from __future__ import annotations

import math

from markupsafe import Markup

from vivace.core.layer import LayerSensitivity
from vivace.report.html import chart, svg
from vivace.report.html.chart import Panel
from vivace.report.html.figure import Cell, Figure, Table, absent, table
from vivace.report.html.scale import linear
from vivace.report.html.words import cut, number, plural
from vivace.report.results import ResultDocument

NUMBER, KEY, TITLE = 5, "sensitivity", "Sensitivity of layers to int8 against their share of the time"
NAMED = 8
LEGEND = (("circle", "front", "not kept"), ("triangle", "winner", "kept in a higher precision"))


def figure(document: ResultDocument) -> Figure:
    """Layers by time and by harm, or why they were not ranked."""
    layers = document.sensitivity
    if not layers:
        return absent(
            NUMBER,
            KEY,
            TITLE,
            "There is no ranking of layers: no plan asked which layers int8 harms, so none was made.",
        )
    kept = [one.layer for one in layers if one.kept]
    said = f"Kept in a higher precision: {', '.join(cut(name, 60) for name in kept[:12])}" if kept else (
        "The delivered program keeps no layer in a higher precision because of this"
    )  # fmt: skip
    more = f" and {len(kept) - 12} more" if len(kept) > 12 else ""
    return Figure(
        NUMBER,
        KEY,
        TITLE,
        f"{said}{more}.",
        (_drawing(layers),),
        f"{plural(len(layers), 'layer')}, {len(kept)} of them kept",
        "each layer alone with its operands rounded to 8 bits: the output's signal to quantization noise, where lower "
        "is worse; the share is of the float32 time of all layers. Top edge: no noise at all",
        "MEASURED; noise in dB, share of time in %",
        (_table(layers),),
    )


def _drawing(layers: list[LayerSensitivity]) -> Markup:
    key, top = chart.legend(LEGEND)
    finite = [one.sqnr_db for one in layers if math.isfinite(one.sqnr_db)]
    panel = Panel(
        linear([100 * one.seconds_share for one in layers], 52, 470, include=(0,)), linear(finite, 266, top + 18)
    )
    worst = sorted(layers, key=lambda one: (not one.kept, one.sqnr_db))[:NAMED]
    dots = [_around(panel, one) for one in layers]
    places: list[chart.Named] = [
        (panel.x.at(100 * one.seconds_share), panel.y.at(one.sqnr_db), (cut(one.layer, 24),)) for one in worst
    ]
    return svg.drawing(
        KEY,
        TITLE,
        f"{len(layers)} layers. The most sensitive: "
        + ", ".join(
            f"{one.layer} {number(one.sqnr_db)} dB at {one.seconds_share:.1%} of the time" for one in worst[:3]
        ),
        chart.WIDTH,
        302,
        key,
        panel.axes("share of the time of all layers, % (MEASURED)", "signal to quantization noise, dB (MEASURED)"),
        *(_point(panel, one) for one in sorted(layers, key=lambda one: one.kept)),
        chart.labels(places, panel, dots),
    )


def _around(panel: Panel, one: LayerSensitivity) -> chart.Box:
    x, y = panel.x.at(100 * one.seconds_share), panel.y.at(one.sqnr_db)
    return x - 4, y - 4, x + 4, y + 4


def _point(panel: Panel, one: LayerSensitivity) -> Markup:
    shape, class_ = ("triangle", "winner") if one.kept else ("circle", "front")
    kept = ", kept in a higher precision" if one.kept else ""
    return svg.hover(
        f"{one.layer}: {number(one.sqnr_db)} dB, {one.seconds_share:.2%} of the time{kept}",
        svg.marker(shape, panel.x.at(100 * one.seconds_share), panel.y.at(one.sqnr_db), class_),
    )


def _table(layers: list[LayerSensitivity]) -> Table:
    rows: list[tuple[str | Cell, ...]] = [
        (
            cut(one.layer, 160),
            Cell(number(one.sqnr_db), one.sqnr_db),
            Cell(f"{one.seconds_share:.2%}", one.seconds_share),
            "kept" if one.kept else "",
        )
        for one in sorted(layers, key=lambda one: one.sqnr_db)
    ]
    return table(("layer", "noise, dB (MEASURED)", "share of time (MEASURED)", "higher precision"), rows)
