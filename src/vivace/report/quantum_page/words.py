"""Figures of the words: superposition, parallel evaluation and entanglement, each with circuit, readings and
statistic."""

from __future__ import annotations

from collections.abc import Iterator

from vivace.quantum.words.demonstration import Demonstration
from vivace.report.html.figure import Cell, Figure, table
from vivace.report.html.words import interval, number, plural
from vivace.report.quantum_page.circuits import circuit, histogram
from vivace.report.quantum_page.document import QuantumDocument


def figures(document: QuantumDocument, first: int) -> Iterator[Figure]:
    """One figure a demonstration, numbered from `first`."""
    for place, word in enumerate(document.words):
        yield _figure(word, first + place)


def _figure(word: Demonstration, number_of: int) -> Figure:
    key = f"word-{number_of}"
    where = f", under the noise of {word.machine}" if word.machine else ""
    rows = [
        (one.name, bits, Cell(f"{count:,}", count))
        for one in word.histograms
        for bits, count in sorted(one.counts.items())
    ]
    return Figure(
        number_of, key, f"{word.title}{where}", _said(word),
        (
            circuit(f"{key}-circuit", word.title, word.picture),
            *(histogram(f"{key}-{place}", one.name, one.counts) for place, one in enumerate(word.histograms)),
        ),
        f"{plural(len(word.histograms), 'circuit')}, {word.shots:,} shots each",
        f"{word.statistic}; intervals of Clopper and Pearson, 95%, sums by Zou and Donner's method",
        "SIMULATED; shots",
        (table(("circuit", "reading, last bit first", "shots"), rows),),
        is_wide=True,
    )  # fmt: skip


def _said(word: Demonstration) -> str:
    verdict = "It holds" if word.holds else "It is NOT shown"
    return (
        f"{word.claim} {verdict}: {word.statistic} = {interval(word.value)}, to exceed {number(word.bound)} (an ideal "
        f"machine gives {number(word.expected)}). {word.caution}"
    )
