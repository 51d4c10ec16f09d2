"""The page: every figure of a document in one file that asks for nothing else, under a strict content policy.

Colours: Okabe and Ito, "Color Universal Design" (2008), a palette that people with each kind of colour blindness can
tell apart; shapes, dashes and words say the same.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

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
from vivace.report.html.words import LONG, cut, made_visible
from vivace.report.results import ResultDocument

FIGURES = (front, gains, latency, profiles, sensitivity, roofline, decisions, costs, timeline)
POLICY = (
    "default-src 'none'; style-src {style}; script-src {script}; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'"
)


def render(document: ResultDocument) -> str:
    """The HTML page of a result: the same text for the same document, with no date and nothing from elsewhere."""
    document = made_visible(document)
    style, script = _read("page.css"), _read("page.js")
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return page.from_string(_read("page.html.jinja")).render(
        document=document,
        policy=POLICY.format(style=_hash(style), script=_hash(script)),
        style=Markup(style),
        script=Markup(script),
        headline=headline(document),
        why=cut(why_kept(document), 2 * LONG),
        tiles=list(around.key_numbers(document)),
        figures=[figures.figure(document) for figures in FIGURES],
        machine=around.machine(document),
        left_out=around.left_out(document),
        fused=around.fused(document),
        commands=list(around.commands(document)),
        limits=[cut(text, 2 * LONG) for text in around.limits(document)],
    )


def _read(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The source expression that allows exactly this text (Content Security Policy Level 3, section 2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
