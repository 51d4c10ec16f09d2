"""The page is the same each time, asks for nothing, lets no text become markup, and stays small."""

from __future__ import annotations

import base64
import hashlib
import random
import re
import unicodedata
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import planted_quantum_run
import planted_results
import planted_training_run
import pytest
from hypothesis import given
from hypothesis import strategies as some

from vivace.report.html.page import render
from vivace.report.html.words import UNSEEN, visible
from vivace.report.quantum_page.document import QuantumDocument
from vivace.report.quantum_page.page import render as render_quantum
from vivace.report.reading import read_text
from vivace.report.results import ResultDocument
from vivace.report.training import TrainingDocument
from vivace.report.training_page.page import render as render_training

TEXT = "html head meta title style script body main header footer section h1 h2 p span small b code ul li dl div dt dd"
PARTS = "figure figcaption details summary table caption thead tbody tr th td"
DRAWING = "svg desc g line rect circle polygon polyline text"
ALLOWED = {name for names in (TEXT, PARTS, DRAWING) for name in names.split()}
ADDRESSES = {"src", "href", "xlink:href", "action", "data", "srcset", "poster", "style"}


class Reader(HTMLParser):
    """What a browser makes of the page: its elements, attributes and texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


PAGES: dict[str, Callable[[], str]] = {
    "a result's": lambda: render(planted_results.rich()),
    "a training's": lambda: render_training(planted_training_run.rich()),
    "a quantum run's": lambda: render_quantum(planted_quantum_run.rich()),
}
HOSTILE: dict[str, Callable[[], str]] = {
    "a result's": lambda: render(planted_results.hostile()),
    "a training's": lambda: render_training(planted_training_run.hostile()),
    "a quantum run's": lambda: render_quantum(planted_quantum_run.hostile()),
}


@pytest.fixture(scope="module", params=HOSTILE)
def hostile(request: pytest.FixtureRequest) -> str:
    return HOSTILE[request.param]()


@pytest.fixture(scope="module", params=PAGES)
def page(request: pytest.FixtureRequest) -> str:
    return PAGES[request.param]()


def test_no_text_becomes_an_element(hostile: str) -> None:
    found = Reader(hostile)
    assert set(found.tags) <= ALLOWED
    assert (found.tags.count("script"), found.tags.count("style")) == (1, 1)


def test_no_text_becomes_an_attribute_that_acts_or_leads_elsewhere(hostile: str) -> None:
    names = {name for name, _ in Reader(hostile).attributes}
    assert not [name for name in names if name.startswith("on") or name in ADDRESSES]


def test_a_hostile_text_is_shown_as_it_is_written(hostile: str) -> None:
    assert hostile.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 50
    assert "{{7*7}}" in hostile
    assert "49" not in re.findall(r"&amp;(\w+)", hostile)


def test_nothing_that_cannot_be_seen_is_in_the_page(hostile: str) -> None:
    unseen = {sign for sign in hostile if unicodedata.category(sign) in UNSEEN} - {"\n"}
    assert unseen == set()
    assert "⟨U+202E⟩" in hostile


@given(some.text())
def test_visible_text_holds_no_sign_that_reorders_or_hides(text: str) -> None:
    assert not [sign for sign in visible(text) if unicodedata.category(sign) in UNSEEN]


def test_the_policy_allows_this_style_and_this_script_and_nothing_else(page: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    given_rules = dict(rule.split(" ", 1) for rule in policy[1].replace("&#39;", "'").split("; "))
    assert given_rules["default-src"] == "'none'"
    for element, rule in (("style", "style-src"), ("script", "script-src")):
        inner = re.search(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
        assert inner is not None
        digest = base64.b64encode(hashlib.sha256(inner[1].encode()).digest()).decode()
        assert given_rules[rule] == f"'sha256-{digest}'"
    assert "unsafe" not in policy[1]


def test_the_page_names_no_address(page: str) -> None:
    assert re.findall(r"(?:https?:)?//\w[^\s<\"']*", page.partition("<script>")[0]) == []


def test_the_page_of_a_file_is_that_of_the_run(rich: ResultDocument) -> None:
    assert render(read_text(rich.to_text())) == render(rich)


@pytest.mark.parametrize("document", [planted_results.extreme(), planted_results.rich(1, 1), planted_results.kept()])
def test_extremes_read_back_and_are_drawn(document: ResultDocument) -> None:
    again = read_text(document.to_text())
    assert again == document
    page = render(again)
    assert page.count("<figure") == 9
    assert not re.search(r'(?:x|y|x1|y1|x2|y2|cx|cy|r|width|height|points)="[^"]*(?:nan|inf)', page)


def test_two_hundred_candidates_and_five_hundred_layers_stay_below_a_megabyte() -> None:
    assert len(render(planted_results.rich(200, 500)).encode()) < 1_000_000


def test_a_long_reason_is_cut_in_the_page() -> None:
    trials = [planted_results.trial(number, "x" * 100_000) for number in range(20)]
    assert len(render(planted_results.rich(1).model_copy(update={"candidates": trials})).encode()) < 400_000


def test_three_hundred_candidates_are_all_in_the_table() -> None:
    page = render(planted_results.rich(300, 2))
    assert page.count("<summary>", page.index("figure-timeline")) >= 300


ODD = (0.0, 5e-324, 1e-300, 1e-9, 0.5, 1.0, 1.0000001, 3.0, 1e9, 1e300, 1.7e308, float("inf"))


@pytest.mark.parametrize("seed", range(24))
def test_whatever_the_numbers_are_a_page_is_drawn(seed: int) -> None:
    chance = random.Random(seed)
    pool = chance.sample(ODD, 4)
    stream = iter(lambda: chance.choice(pool), None)
    document = ResultDocument.model_validate(_with(planted_results.rich(4, 2).model_dump(), stream))
    assert render(document).count("<figure") == 9
    training = TrainingDocument.model_validate(_with(planted_training_run.rich().model_dump(), stream))
    assert render_training(training).count("<figure") == 8
    quantum = QuantumDocument.model_validate(_with(planted_quantum_run.rich().model_dump(), stream))
    assert render_quantum(quantum).count("<figure") == 7


def _with(node: Any, stream: Any) -> Any:
    """The node with every number that is measured in its place taken from the stream; intervals stay in order."""
    if isinstance(node, dict) and {"low", "value", "high"} <= node.keys():
        low, value, high = sorted(next(stream) for _ in range(3))
        return {"value": value, "low": low, "high": high}
    if isinstance(node, dict):
        return {key: _with(value, stream) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_with(value, stream) for value in node]
    return next(stream) if isinstance(node, float) else node
