"""Figure 6: what the memory of a step holds, before and after."""

from __future__ import annotations

from markupsafe import Markup

from vivace.core.training.run import Diagnosis
from vivace.report.html import chart, svg
from vivace.report.html.chart import Bar
from vivace.report.html.figure import Cell, Figure, Table, table
from vivace.report.html.scale import linear
from vivace.report.html.words import byte_unit
from vivace.report.training import MEMORY, TrainingDocument
from vivace.report.training_page.phases import diagnoses
from vivace.report.wording import show_bytes

NUMBER, KEY, TITLE = 6, "memory", "What the memory holds"
LABELS, RIGHT = 150.0, 392.0


def figure(document: TrainingDocument) -> Figure:
    """Bars by kind, and the peak of the whole process where steps were timed."""
    sides, peaks = _sides(document), _peaks(document)
    return Figure(
        NUMBER,
        KEY,
        TITLE,
        _said(document, sides),
        (_step(sides), *([_process(peaks)] if peaks else [])),
        f"one step of {' and of '.join('the original' if name == 'original' else 'the plan' for name, _, _ in sides)}",
        "parameters, their gradients and the optimizer's state are counted tensor by tensor; activations are what the "
        "forward pass keeps for the backward pass, each piece of memory once, without parameters. Peak memory is the "
        "highest of the whole process, with Python and PyTorch, over the pairs of the confirmation",
        "MEASURED; bytes",
        (_table(document, sides),),
        is_wide=bool(peaks),
    )


Sides = list[tuple[str, str, Diagnosis]]
Peaks = list[tuple[str, str, int]]
"""Name, class, and diagnosis or bytes."""


def _sides(document: TrainingDocument) -> Sides:
    return [
        ("original" if class_ == "original" else "plan", class_, found)
        for (_, found), class_ in zip(diagnoses(document), ("original", "winner"), strict=False)
    ]


def _peaks(document: TrainingDocument) -> Peaks:
    found = document.comparison
    if found is None:
        return []
    both = (("original", "original", found.baseline), ("plan", "winner", found.candidate))
    return [(name, class_, times.peak_memory_bytes) for name, class_, times in both if times.peak_memory_bytes]


def _said(document: TrainingDocument, sides: Sides) -> str:
    name, _, found = sides[0]
    most = max(MEMORY, key=lambda key: _size(found, key))
    told = [f"The largest part of what the {name}'s step holds: {MEMORY[most]}, {show_bytes(_size(found, most))}."]
    peaks = [f"{words} {show_bytes(size)}" for words, _, size in _peaks(document)]
    return " ".join([*told, f"Peak memory of the process: {', '.join(peaks)}." if peaks else
                     "The peak of the whole process was not read: no steps were timed."])  # fmt: skip


def _step(sides: Sides) -> Markup:
    """What a step holds, kind by kind on one scale."""
    sizes = [float(_size(found, key)) for *_, found in sides for key in MEMORY]
    rows = [[(f"{words}, {name}" if name == "original" else name, class_, _size(found, key))
             for name, class_, found in sides] for key, words in MEMORY.items()]  # fmt: skip
    told = "; ".join(f"{name}: {_listed(found)}" for name, _, found in sides)
    return _bars(KEY, TITLE, told, rows, sizes, "what a step holds (MEASURED)")


def _process(peaks: Peaks) -> Markup:
    """The peak of the whole process."""
    told = "; ".join(f"{name}: {show_bytes(size)}" for name, _, size in peaks)
    rows = [[(f"whole process, {name}" if name == "original" else name, class_, size) for name, class_, size in peaks]]
    sizes = [float(size) for *_, size in peaks]
    return _bars(f"{KEY}-peak", "Peak memory of the process", told, rows, sizes, "at the peak (MEASURED)")


def _bars(name: str, title: str, told: str, groups: list[Peaks], sizes: list[float], words: str) -> Markup:
    factor, unit = byte_unit(sizes)
    scale = linear([size * factor for size in sizes], LABELS + 6, RIGHT, include=(0.0,))
    drawn, top = [], 8.0
    for group in groups:
        rows = [Bar(label, size * factor, show_bytes(size), class_) for label, class_, size in group]
        drawn.append(chart.bars(rows, scale, top, LABELS))
        top += 16 * len(rows) + 9
    rules = chart.rules(scale, top, f"{words}, {unit}", 5, top=4.0, is_ratio=False)
    return svg.drawing(name, title, told, chart.WIDTH, top + 34, rules, *drawn)


def _listed(found: Diagnosis) -> str:
    return ", ".join(f"{words} {show_bytes(_size(found, key))}" for key, words in MEMORY.items())


def _size(found: Diagnosis, key: str) -> int:
    size: int = getattr(found, f"{key}_bytes")
    return size


def _table(document: TrainingDocument, sides: Sides) -> Table:
    rows: list[tuple[str | Cell, ...]] = [
        (words, *(Cell(show_bytes(_size(found, key)), _size(found, key)) for *_, found in sides))
        for key, words in MEMORY.items()
    ]
    if peaks := _peaks(document):
        known = {name: size for name, _, size in peaks}
        told = (known.get(name) for name, *_ in sides)
        rows.append(("whole process, peak", *(Cell(show_bytes(size), size) for size in told)))
    return table(("kind (MEASURED)", *(name for name, *_ in sides)), rows)
