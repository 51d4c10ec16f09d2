"""The page of a quantum run: every figure of quantum.json and what stands around them."""

from __future__ import annotations

from vivace.report.html.skeleton import Page, drawn
from vivace.report.html.words import LONG, cut, made_visible
from vivace.report.quantum_page import around, choices, layer, machines, words
from vivace.report.quantum_page.document import QuantumDocument, headline
from vivace.report.results import QUANTUM

PREDICTED = "from published calibration data and formulas with their sources, of machines that nothing ran on"


def render(document: QuantumDocument) -> str:
    """The HTML page of a quantum run: the same text for the same document, with no date and nothing from elsewhere."""
    document = made_visible(document)
    figures = [layer.agreement(document), layer.circuits(document), machines.figure(document),
               *choices.figures(document, 4), *words.figures(document, 4 + len(document.choices))]  # fmt: skip
    return drawn(
        Page(
            source=QUANTUM,
            name=cut(document.name, LONG),
            plan_name=cut(document.layer, LONG),
            subject="layer",
            predicted=PREDICTED,
            headline=cut(headline(document), 2 * LONG),
            why=cut(around.why_slower(document), 2 * LONG),
            tiles=list(around.key_numbers(document)),
            figures=figures,
            numbered="No speed-up is claimed anywhere.",
            target="TARGET is the model, such as work.py:name or a model file.",
            commands=list(around.commands(document)),
            limits=[cut(text, 2 * LONG) for text in around.limits(document)],
            conditions=around.conditions_of(document),
        )
    )
