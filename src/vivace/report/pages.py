"""The page and the first line of whatever a run wrote: an optimization, a training, a layer as quantum computation."""

from __future__ import annotations

from vivace.report import headline as results
from vivace.report import training
from vivace.report.html.page import render
from vivace.report.reading import Document
from vivace.report.results import ResultDocument
from vivace.report.training import TrainingDocument
from vivace.report.training_page.page import render as render_training


def page_of(document: Document) -> str:
    """The HTML page of a run, drawn from its document alone."""
    if isinstance(document, ResultDocument):
        return render(document)
    if isinstance(document, TrainingDocument):
        return render_training(document)
    from vivace.report.quantum_page.page import render as render_quantum  # needs numpy, which other runs do not

    return render_quantum(document)


def headline_of(document: Document) -> str:
    """What was won and how sure that is, in one sentence, or that nothing was; of a quantum run its verdict."""
    if isinstance(document, ResultDocument):
        return results.headline(document)
    if isinstance(document, TrainingDocument):
        return training.headline(document)
    from vivace.report.quantum_page.document import headline

    return headline(document)
