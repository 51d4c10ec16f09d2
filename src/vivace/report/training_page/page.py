"""The page of a training: every figure of run.json and what stands around them."""

from __future__ import annotations

from vivace.report.html.skeleton import Page, drawn
from vivace.report.html.words import LONG, cut, made_visible
from vivace.report.training import RUN, TrainingDocument, headline
from vivace.report.training_page import agreements, around, course, gains, memory, phases, processes, ratios, tried

FIGURES = (phases, gains, ratios, agreements, course, memory, tried, processes)


def render(document: TrainingDocument) -> str:
    """The HTML page of a training: the same text for the same document, with no date and nothing from elsewhere."""
    document = made_visible(document)
    document = document.model_copy(
        update={"name": cut(document.name, LONG), "plan_name": cut(document.plan_name, 2 * LONG)}
    )
    return drawn(
        Page(
            source=RUN,
            name=document.name,
            plan_name=document.plan_name,
            headline=headline(document),
            why=cut(around.why_as_given(document), 2 * LONG),
            tiles=list(around.key_numbers(document)),
            figures=[figures.figure(document) for figures in FIGURES],
            numbered="#1, #2, ... are the trials of figure 7.",
            target="TARGET is the job that was trained, such as job.py:name, and job the Training itself.",
            commands=list(around.commands(document)),
            limits=[cut(text, 2 * LONG) for text in around.limits(document)],
            conditions=around.machine(document),
        )
    )
