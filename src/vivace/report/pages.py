"""The page and the first line of whatever a run wrote: an optimization, a training, a layer as quantum computation."""

from __future__ import annotations

from vivace.report import headline as results
from vivace.report import training
from vivace.report.html.page import render
from vivace.report.quantum_page.document import QuantumDocument
from vivace.report.quantum_page.document import headline as quantum_headline
from vivace.report.quantum_page.page import render as render_quantum
from vivace.report.reading import Document
from vivace.report.training import TrainingDocument
from vivace.report.training_page.page import render as render_training


def page_of(document: Document) -> str:
    """The HTML page of a run, drawn from its document alone."""
    if isinstance(document, QuantumDocument):
        return render_quantum(document)
    return render_training(document) if isinstance(document, TrainingDocument) else render(document)


def headline_of(document: Document) -> str:
    """What was won and how sure that is, in one sentence, or that nothing was."""
    if isinstance(document, QuantumDocument):
        return quantum_headline(document)
    return training.headline(document) if isinstance(document, TrainingDocument) else results.headline(document)
