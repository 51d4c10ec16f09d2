"""Figure 4: how far each tensor of the plan's steps is from float64, against what is allowed and the original's own."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from markupsafe import Markup

from vivace.core.training.parity import Agreement, Curve, Kind
from vivace.report.html import chart, svg
from vivace.report.html.chart import Panel
from vivace.report.html.figure import Cell, Figure, Table, absent, table
from vivace.report.html.scale import Scale, fitting, linear, logarithmic
from vivace.report.html.words import cut, number, plural
from vivace.report.training import ParityDocument, TrainingDocument

NUMBER, KEY, TITLE = 4, "agreements", "Parity: whether the steps are the same"
WIDE = 960.0
NAMED = 8
NAMES = {
    Kind.GRADIENT: "gradients", Kind.UPDATE: "updates", Kind.BUFFER: "buffers", Kind.BATCH: "batches",
    Kind.COPY: "copies", Kind.STATE: "tensors of the optimizer's", Kind.LOSS: "losses",
}  # fmt: skip
SHAPES = {
    Kind.GRADIENT: "circle", Kind.UPDATE: "square", Kind.BUFFER: "triangle", Kind.BATCH: "diamond", Kind.COPY: "cross",
    Kind.STATE: "wedge", Kind.LOSS: "bar",
}  # fmt: skip


def figure(document: TrainingDocument) -> Figure:
    """The tensors by their error, and losses over seeds where they were compared; or why nothing was proved."""
    proof = document.parity
    if proof is None:
        return absent(NUMBER, KEY, TITLE, f"There is no proof here: {_unproved(document)}.")
    curves = [("loss", proof.curve), ("score", proof.scores)]
    drawings = [_losses(name, found) for name, found in curves if found is not None and _is_drawn(found)]
    tensors = [one for one in proof.agreements if one.kind is not Kind.BATCH or not one.holds]
    dots = [_drawing(tensors, chart.WIDTH if drawings else WIDE)] if tensors else []
    return Figure(
        NUMBER,
        KEY,
        TITLE,
        _said(proof, curves),
        (*dots, *drawings),
        f"{plural(proof.tensors, 'comparison')} of tensors, the {len(proof.agreements)} nearest to their limit "
        f"are here: {_counts(proof.agreements)}{_seeds(curves)}",
        f"each step starts from the original's weights. Error: the norm of the difference from the same step in "
        f"{proof.reference}, over the norm of that. The original's own error is measured in the same way, and what is "
        "allowed follows from it and from the precision of the plan's numbers. At the lower edge: no error at all; at "
        "the upper one: no number can be given, and the table says why",
        "MEASURED; relative error, without unit, on a logarithmic scale",
        (_table(proof), *([_curves_table(curves)] if any(found for _, found in curves) else [])),
        is_wide=True,
    )


def _unproved(document: TrainingDocument) -> str:
    if document.resumed_steps and document.plan and not document.dropped:
        return "the plan was proved before this run was resumed"
    return "it was trained as given, and nothing has to be proved of that"


def _said(proof: ParityDocument, curves: Sequence[tuple[str, Curve | None]]) -> str:
    told = [f"{proof.verdict.value}: {proof.reason}."]
    known = [one for one in proof.agreements if one.kind is not Kind.BATCH]
    if known and known[0].holds:
        told.append(f"Nearest to its limit: {known[0]}.")
    same = sum(one.kind is Kind.BATCH and one.holds for one in proof.agreements)
    told += [f"Batches that equal the original's to the bit: {same}."] if same else []
    for name, found in curves:
        if found is not None:
            told.append(f"The plan's {name} less the original's is {found.difference}, margin {number(found.margin)}: "
                        f"{found.verdict.value}.")  # fmt: skip
    told += [f"Note: {note}." for note in proof.notes]
    return " ".join(told)


def _counts(agreements: Sequence[Agreement]) -> str:
    counts = Counter(one.kind for one in agreements)
    return ", ".join(f"{counts[kind]} of {NAMES[kind]}" for kind in Kind if counts[kind])


def _is_drawn(found: Curve) -> bool:
    """Whether there is a line to draw for each seed."""
    return all(side and all(len(run) > 1 for run in side) for side in (found.original, found.plan))


def _seeds(curves: Sequence[tuple[str, Curve | None]]) -> str:
    return "".join(
        f"; {name} over {plural(len(found.original), 'seed')}" for name, found in curves if found is not None
    )


def _drawing(tensors: Sequence[Agreement], width: float) -> Markup:
    key, top = chart.legend(_legend(tensors), width=width)
    ordered = [one for kind in SHAPES for one in tensors if one.kind is kind]
    values = [v for one in ordered for v in (one.error, one.allowed, one.noise)]
    panel = Panel(Scale(-1.0, len(ordered), 62, width - 12), logarithmic(values, 292, top + 20))
    named = sorted((one for one in ordered), key=lambda one: (one.holds, tensors.index(one)))[:NAMED]
    named = [one for one in named if not one.holds] or named[:1]
    places: list[chart.Named] = [
        (panel.x.at(ordered.index(one)), _height(panel, one), (cut(one.what, 44),)) for one in named
    ]
    boxes = [_box(panel, place, one) for place, one in enumerate(ordered)]
    worst = named[0]
    return svg.drawing(
        KEY,
        TITLE,
        f"{len(ordered)} tensors. Nearest to its limit: {worst}.",
        width,
        322,
        key,
        panel.axes("tensors, kind by kind, the nearest to its limit first", "relative error (MEASURED)", has_x=False),
        *_kinds(panel, ordered),
        *(_tensor(panel, place, one) for place, one in enumerate(ordered)),
        chart.labels(places, panel, boxes),
    )


def _legend(tensors: Sequence[Agreement]) -> list[tuple[str, str, str]]:
    kinds = {one.kind for one in tensors if one.holds}
    held = [(shape, "winner", f"error of one of the {NAMES[kind]}") for kind, shape in SHAPES.items() if kind in kinds]
    wrong = [] if all(one.holds for one in tensors) else [("cross", "refused-tensor", "further off than allowed")]
    return [*held, *wrong, ("line", "allowed", "allowed"), ("circle", "original hollow", "the original's own error")]


def _height(panel: Panel, one: Agreement) -> float:
    """Where an error is drawn: one that no number can tell lies just below the upper edge."""
    return panel.y.end + 8 if math.isinf(one.error) else panel.y.at(one.error)


def _box(panel: Panel, place: int, one: Agreement) -> chart.Box:
    x, y = panel.x.at(place), _height(panel, one)
    return x - 4, y - 4, x + 4, y + 4


def _kinds(panel: Panel, ordered: Sequence[Agreement]) -> list[Markup]:
    """A line between kinds, and the name of each."""
    parts, kinds = [], [one.kind for one in ordered]
    for kind, count in Counter(kinds).items():
        begun = kinds.index(kind)
        x, middle = panel.x.at(begun - 0.5), panel.x.at(begun + (count - 1) / 2)
        parts += [svg.line(x, panel.y.end, x, panel.y.start, "between")] if begun else []
        parts.append(svg.text(middle, panel.y.start + 13, f"{kind.value} ({count})", "tick", "middle"))
    return parts


def _tensor(panel: Panel, place: int, one: Agreement) -> Markup:
    x, error = panel.x.at(place), _height(panel, one)
    half = min(4.0, max(1.0, (panel.x.at(1) - panel.x.at(0)) / 2))
    own = [] if math.isinf(one.error) and one.reason else [
        svg.line(x - half, panel.y.at(one.allowed), x + half, panel.y.at(one.allowed), "allowed"),
        svg.marker("circle", x, panel.y.at(one.noise), "original hollow", 2.0),
    ]  # fmt: skip
    mark = svg.marker(SHAPES[one.kind], x, error, "winner", 2.8) if one.holds else svg.marker(
        "cross", x, error, "refused-tensor", 4.0
    )  # fmt: skip
    return svg.hover(str(one), *own, mark)


def _losses(name: str, found: Curve) -> Markup:
    """A line for each seed: the original's, and the plan's."""
    key, top = chart.legend((("line", "original curve", "original"), ("line", "winner curve", "plan")))
    losses = [loss for side in (found.original, found.plan) for run in side for loss in run]
    longest = max(len(run) for side in (found.original, found.plan) for run in side)
    panel = Panel(linear([float(longest)], 62, 470, include=(1.0,)), fitting(losses, 292, top + 20))
    runs = [
        svg.hover(
            f"{words}, seed {seed}: {name} {number(run[0])} to {number(run[-1])}",
            svg.path([(panel.x.at(step), panel.y.at(loss)) for step, loss in enumerate(run, 1)], f"{class_} curve"),
        )
        for words, class_, side in (("original", "original", found.original), ("plan", "winner", found.plan))
        for seed, run in enumerate(side, 1)
    ]
    told = f"the plan's {name} less the original's at the end: {found.difference}, margin {number(found.margin)}"
    return svg.drawing(f"{KEY}-{name}", f"{name.capitalize()} over seeds", f"{told}.", chart.WIDTH, 322, key,
                       panel.axes("step", f"{name} (MEASURED)"), *runs)  # fmt: skip


def _table(proof: ParityDocument) -> Table:
    rows: list[tuple[str | Cell, ...]] = [
        (one.kind.value, cut(one.name, 160), Cell(str(one.step), one.step), Cell(_power(one.error), one.error),
         Cell(_power(one.allowed), one.allowed), Cell(_power(one.noise), one.noise),
         Cell(f"{one.cosine:.6f}", one.cosine), "holds" if one.holds else one.reason or "further off than allowed")
        for one in proof.agreements
    ]  # fmt: skip
    columns = ("kind", "tensor", "step", "error (MEASURED)", "allowed", "the original's own (MEASURED)", "cosine", "")
    return table(columns, rows)


def _power(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:.2g}"


def _curves_table(curves: Sequence[tuple[str, Curve | None]]) -> Table:
    rows: list[tuple[str | Cell, ...]] = [
        (name, Cell(str(seed), seed), Cell(number(own[-1]), own[-1]), Cell(number(other[-1]), other[-1]))
        for name, found in curves
        if found is not None
        for seed, (own, other) in enumerate(zip(found.original, found.plan, strict=False), 1)
        if own and other
    ]
    return table(("what", "seed", "original, at the end", "plan, at the end"), rows, "over seeds (MEASURED)")
