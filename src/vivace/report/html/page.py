"""The page of a result: every figure of results.json and what stands around them."""

from __future__ import annotations

from vivace.report.headline import headline, why_kept
from vivace.report.html import (
    around,
    costs,
    decisions,
    front,
    gains,
    latency,
    profiles,
    roofline,
    sensitivity,
    timeline,
)
from vivace.report.html.skeleton import Page, drawn
from vivace.report.html.words import LONG, cut, made_visible
from vivace.report.results import RESULTS, ResultDocument

FIGURES = (front, gains, latency, profiles, sensitivity, roofline, decisions, costs, timeline)


def render(document: ResultDocument) -> str:
    """The HTML page of a result: the same text for the same document, with no date and nothing from elsewhere."""
    document = made_visible(document)
    return drawn(
        Page(
            source=RESULTS,
            name=document.name,
            plan_name=document.plan_name,
            artifact=document.artifact,
            headline=headline(document),
            why=cut(why_kept(document), 2 * LONG),
            tiles=list(around.key_numbers(document)),
            figures=[figures.figure(document) for figures in FIGURES],
            numbered="#1, #2, ... are the candidates of figure 9.",
            target="TARGET is what was optimized, such as work.py:name or a model file.",
            commands=list(around.commands(document)),
            limits=[cut(text, 2 * LONG) for text in around.limits(document)],
            conditions=around.machine(document),
            details=list(around.details(document)),
        )
    )
