"""The skeleton of every page: what stands where, in one file that asks for nothing else, under a strict content policy.

Colours: Okabe and Ito, "Color Universal Design" (2008), a palette that people with each kind of colour blindness can
tell apart; shapes, dashes and words say the same.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from vivace.report.html.figure import Figure, Table

POLICY = (
    "default-src 'none'; style-src {style}; script-src {script}; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'"
)
Tile = tuple[str, str, str]
"""What it is, its value, what it rests on."""


@dataclasses.dataclass(frozen=True)
class Page:
    """What a page holds, from its first line to its last. Texts are plain: whoever draws it escapes them.

    `source` is the file that it was drawn from, `why` the reason where nothing won, `artifact` the folder of what was
    won, `numbered` what "#1" stands for, `target` what TARGET in the commands does, `details` tables that stand closed
    below the conditions, each with its summary.
    """

    source: str
    name: str
    plan_name: str
    headline: str
    tiles: Sequence[Tile]
    figures: Sequence[Figure]
    numbered: str
    target: str
    commands: Sequence[tuple[str, str]]
    limits: Sequence[str]
    conditions: Table
    subject: str = "plan"
    """What `plan_name` names."""
    predicted: str = "which only orders what is tried"
    why: str = ""
    artifact: str | None = None
    details: Sequence[tuple[str, Table]] = ()


def drawn(page: Page) -> str:
    """The HTML of a page: the same text for the same page, with no date and nothing from elsewhere."""
    style, script = _read("page.css"), _read("page.js")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_read("page.html.jinja")).render(
        page=page,
        policy=POLICY.format(style=_hash(style), script=_hash(script)),
        style=Markup(style),
        script=Markup(script),
    )


def _read(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The source expression that allows exactly this text (Content Security Policy Level 3, section 2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
