"""Figures of the choices: every solver's answer against the exact optimum, with evaluations and time."""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from vivace.quantum.choices.answer import Answer, Comparison
from vivace.report.html import chart, svg
from vivace.report.html.chart import Bar
from vivace.report.html.figure import Cell, Figure, table
from vivace.report.html.scale import linear
from vivace.report.html.words import LONG, cut, number, plural
from vivace.report.quantum_page.document import QuantumDocument, lasting

LABELS, RIGHT = 150.0, 400.0


def figures(document: QuantumDocument, first: int) -> Iterator[Figure]:
    """One figure a choice, numbered from `first`."""
    for place, found in enumerate(document.choices):
        yield _figure(found, first + place)


def _figure(found: Comparison, number_of: int) -> Figure:
    key = f"choice-{number_of}"
    title = f"The search's choice as a quadratic problem: {found.name}"
    rows = [_row(answer, found.unit) for answer in found.answers]
    columns = ("solver", "basis", "cost", "over the optimum", "optimal", "evaluations", "took here (MEASURED)",
               "best read, of samples", "longest stage", "answer", "note")  # fmt: skip
    note = f" ({found.note})" if found.note else ""
    return Figure(
        number_of, key, title, _said(found), (_bars(found, key, title),),
        f"{plural(len(found.layers), 'layer')}, {plural(found.bits, 'bit')}, {found.states:,.0f} states{note}",
        "dynamic programming gives the optimum; QAOA and Grover's search ran on the "
        "simulator, which first filled a table of all states, so their evaluations leave out what only a simulator "
        "can have",
        f"cost in {found.unit}, times {found.basis}; solvers took the MEASURED time of this machine, for circuits that "
        "of their simulation",
        (table(columns, rows),),
    )  # fmt: skip


def _said(found: Comparison) -> str:
    right = [answer.solver for answer in found.answers if answer.is_optimal]
    wrong = [answer.solver for answer in found.answers if answer.cost is not None and not answer.is_optimal]
    absent = [f"{answer.solver}: {answer.found.note}" for answer in found.answers if answer.cost is None]
    return " ".join([
        f"The exact optimum was found by: {', '.join(right)}.",
        *([f"Not by: {', '.join(wrong)}."] if wrong else []),
        *([f"No answer from {'; '.join(absent)}."] if absent else []),
        f"The answer to use is that of {found.used}, which needs no quantum computer.",
    ])  # fmt: skip


def _bars(found: Comparison, key: str, title: str) -> Markup:
    costs = [answer.cost for answer in found.answers if answer.cost is not None]
    rows = [
        Bar(
            answer.solver, answer.cost,
            "no answer" if answer.cost is None else f"{number(answer.cost)} {found.unit}, {answer.found.evaluations:,} "
            f"{answer.found.counted}",
            "winner" if answer.is_optimal else "original",
        )
        for answer in found.answers
    ]  # fmt: skip
    scale = linear(costs, LABELS + 6, RIGHT, include=(0.0,))
    bottom = 24.0 + 16 * len(rows)
    told = "; ".join(f"{row.label}: {row.words}" for row in rows)
    return svg.drawing(
        key, title, told, chart.WIDTH, bottom + 34,
        chart.rules(scale, bottom, f"cost, {found.unit}; the optimum in the winner's colour", 5, is_ratio=False),
        chart.bars(rows, scale, 24.0, LABELS),
    )  # fmt: skip


def _row(answer: Answer, unit: str) -> tuple[str | Cell, ...]:
    read = answer.found
    hits = "-" if read.hits is None else f"{read.hits:,} of {read.samples:,}"
    chance = "" if read.chance is None or read.samples is None else f", by chance {number(read.chance * read.samples)}"
    return (
        answer.solver, answer.basis, Cell("-" if answer.cost is None else f"{number(answer.cost)} {unit}", answer.cost),
        Cell("-" if answer.excess is None else f"{answer.excess:.1%}", answer.excess),
        "-" if answer.cost is None else "yes" if answer.is_optimal else "no",
        Cell(f"{read.evaluations:,} {read.counted}", read.evaluations), Cell(lasting(answer.seconds), answer.seconds),
        hits + chance, "-" if answer.bottleneck is None else lasting(answer.bottleneck),
        cut(answer.described, LONG), cut(read.note, LONG),
    )  # fmt: skip
