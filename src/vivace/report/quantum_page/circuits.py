"""Circuits and histograms as drawings: wires from left to right, gates as boxes; counts as bars."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from vivace.quantum.picture import Picture, PlacedGate
from vivace.report.html import chart, svg
from vivace.report.html.chart import Bar
from vivace.report.html.scale import linear
from vivace.report.html.words import plural

LEFT, TOP = 34.0, 18.0
ROW, COLUMN, BOX = 26.0, 46.0, 18.0
MOST_BARS = 16
MOST_COLUMNS = 9
"""What is drawn of a circuit, so that it is as wide as other drawings and can be read."""
LABELS, RIGHT = 90.0, 400.0


def circuit(name: str, title: str, picture: Picture) -> Markup:
    """A circuit's first columns, with a sentence on what is left out."""
    shown = picture.columns[:MOST_COLUMNS]
    count = sum(map(len, shown))
    left_out = picture.more + sum(map(len, picture.columns)) - count
    width = LEFT + COLUMN * max(1, len(shown)) + 12
    bottom = TOP + ROW * len(picture.wires)
    wires = [
        svg.join(svg.text(4, _at(wire) + 4, label, "tick"), svg.line(LEFT - 6, _at(wire), width - 6, _at(wire), "axis"))
        for wire, label in enumerate(picture.wires)
    ]
    gates = [_gate(gate, LEFT + COLUMN * (place + 0.5)) for place, column in enumerate(shown) for gate in column]
    more = svg.text(LEFT, bottom + 8, f"and {plural(left_out, 'gate')} more", "tick") if left_out else Markup("")
    told = f"{len(picture.wires)} qubits, {plural(count, 'gate')} shown, {left_out} more"
    return svg.drawing(name, title, told, max(width, chart.WIDTH), bottom + 16, *wires, *gates, more)


def _at(wire: int) -> float:
    return TOP + ROW * (wire + 0.5) - 8


def _gate(gate: PlacedGate, x: float) -> Markup:
    """A gate: a line through its wires, points on those that control it, a box with its name on the others."""
    places = [_at(wire) for wire in gate.wires]
    link = svg.line(x, min(places), x, max(places), "axis") if len(places) > 1 else Markup("")
    points = [svg.marker("circle", x, y, "winner", 3.0) for y in places[: gate.controls]]
    width = max(BOX, svg.width_of(gate.name) + 6)
    boxes = [
        svg.join(
            svg.rectangle(x - width / 2, y - BOX / 2, width, BOX, "original"),
            svg.text(x, y + 4, gate.name, "inside", "middle"),
        )
        for y in places[gate.controls :]
    ]
    return svg.hover(f"{gate.name} on {', '.join(f'q{wire}' for wire in gate.wires)}", link, *points, *boxes)


def histogram(name: str, title: str, counts: Mapping[str, int]) -> Markup:
    """How often each reading was seen, the readings in order; of many the most frequent."""
    shots = max(1, sum(counts.values()))
    shown = sorted(sorted(counts, key=lambda bits: -counts[bits])[:MOST_BARS])
    rows = [
        Bar(bits, float(counts[bits]), f"{counts[bits]:,} ({counts[bits] / shots:.1%})", "winner") for bits in shown
    ]
    scale = linear([float(counts[bits]) for bits in shown], LABELS + 6, RIGHT, include=(0.0,))
    bottom = 24.0 + 16 * len(rows)
    told = ", ".join(f"{bits}: {counts[bits]}" for bits in shown)
    left_out = len(counts) - len(shown)
    words = f"{title}: shots of {shots:,} (SIMULATED)" + (
        f", {plural(left_out, 'reading')} left out" if left_out else ""
    )
    return svg.drawing(
        name, title, told, chart.WIDTH, bottom + 34,
        chart.rules(scale, bottom, words, 5, is_ratio=False), chart.bars(rows, scale, 24.0, LABELS),
    )  # fmt: skip
