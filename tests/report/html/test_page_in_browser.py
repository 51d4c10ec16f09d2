"""The page in a real browser: no errors, no requests, every figure there, the table sorts, both colour schemes."""

from __future__ import annotations

import base64
import json
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import planted_quantum_run as quantum
import planted_results
import planted_training_run as trained
import pytest

from vivace.report.html.page import render
from vivace.report.pages import page_of
from vivace.report.reading import Document
from vivace.report.results import ResultDocument

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install 'vivace[dev]'")
BROWSER, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="no browser: apt-get install chromium chromium-driver"),
]
LISTENER = """
window.violations = [];
document.addEventListener("securitypolicyviolation", event => window.violations.push(event.violatedDirective));
"""
OUTSIDE = """
return [...document.querySelectorAll("svg")].flatMap(svg => [...svg.querySelectorAll("text")].filter(text => {
  const box = text.getBBox(), all = svg.viewBox.baseVal;
  return box.x < -4 || box.y < -4 || box.x + box.width > all.width + 4 || box.y + box.height > all.height + 4;
}).map(text => text.textContent));
"""
FIGURES = """
return [...document.querySelectorAll("figure")].map(figure => ({
  title: figure.querySelector("h2").innerText,
  said: figure.querySelector("figcaption").innerText,
  shapes: figure.querySelectorAll("svg line, svg rect, svg circle, svg polygon, svg polyline").length,
  heights: [...figure.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect().height),
}));
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window, whose console and network are recorded."""
    options = webdriver.ChromeOptions()
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1400,1000",
    ):
        options.add_argument(flag)
    options.binary_location = BROWSER
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": LISTENER})
    yield driver
    driver.quit()


def opened(browser: Any, folder: Path, page: str) -> Any:
    """The browser with this page open, its logs empty but for what the page caused."""
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(path.as_uri())
    return browser


def requests(browser: Any) -> list[str]:
    """The addresses that were asked for."""
    events = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


def column(browser: Any, number: int) -> list[str]:
    script = (
        "return [...document.querySelectorAll('table.sortable tbody tr')].map(row => row.cells[arguments[0]].innerText)"
    )
    found: list[str] = browser.execute_script(script, number)
    return found


@pytest.mark.parametrize(
    "make",
    [planted_results.rich, planted_results.kept, planted_results.hostile, planted_results.extreme, trained.rich,
     trained.as_given, trained.refused, trained.hostile, trained.extreme, quantum.rich, quantum.bare, quantum.hostile],
    ids=lambda make: f"{make.__module__}-{make.__name__}",
)  # fmt: skip
def test_a_page_has_no_error_and_asks_for_nothing_but_itself(
    browser: Any, tmp_path: Path, make: Callable[[], Document]
) -> None:
    page = opened(browser, tmp_path, page_of(make()))
    assert [entry["message"] for entry in page.get_log("browser")] == []
    assert requests(page) == [(tmp_path / "page.html").as_uri()]
    assert page.execute_script("return window.violations") == []


def test_every_figure_is_there_and_filled(browser: Any, tmp_path: Path, rich: ResultDocument) -> None:
    figures = opened(browser, tmp_path, render(rich)).execute_script(FIGURES)
    assert [int(found["title"].split(".")[0]) for found in figures] == list(range(1, 10))
    for found in figures:
        assert found["shapes"] > 8, found["title"]
        assert min(found["heights"]) > 80, found["title"]
        assert all(word in found["said"] for word in ("n:", "Method:", "Units:")), found["title"]


def test_every_figure_of_a_training_is_there_and_filled(browser: Any, tmp_path: Path) -> None:
    figures = opened(browser, tmp_path, page_of(trained.rich())).execute_script(FIGURES)
    assert [int(found["title"].split(".")[0]) for found in figures] == list(range(1, 9))
    for found in figures:
        assert found["shapes"] > 8, found["title"]
        assert min(found["heights"]) > 60, found["title"]
        assert all(word in found["said"] for word in ("n:", "Method:", "Units:")), found["title"]


def test_every_figure_of_a_quantum_run_is_there_and_filled(browser: Any, tmp_path: Path) -> None:
    figures = opened(browser, tmp_path, page_of(quantum.rich())).execute_script(FIGURES)
    assert [int(found["title"].split(".")[0]) for found in figures] == list(range(1, 8))
    for found in figures:
        assert found["shapes"] > 5, found["title"]
        assert min(found["heights"]) > 50, found["title"]
        assert all(word in found["said"] for word in ("n:", "Method:", "Units:")), found["title"]


def test_every_figure_of_a_kept_original_says_something(browser: Any, tmp_path: Path, kept: ResultDocument) -> None:
    figures = opened(browser, tmp_path, render(kept)).execute_script(FIGURES)
    assert len(figures) == 9
    assert all(len(found["said"]) > 20 for found in figures)


def test_the_headline_is_what_results_json_says(browser: Any, tmp_path: Path, rich: ResultDocument) -> None:
    told = opened(browser, tmp_path, render(rich)).find_element("id", "headline").text
    speedup = json.loads(rich.to_text())["speedup"]
    numbers = [float(number) for number in re.findall(r"\d+\.\d+", told)[:3]]
    assert numbers == pytest.approx([speedup["value"], speedup["low"], speedup["high"]], abs=0.005)
    assert "HELD" in told


def test_the_headline_of_a_training_is_what_run_json_says(browser: Any, tmp_path: Path) -> None:
    told = opened(browser, tmp_path, page_of(trained.rich())).find_element("id", "headline").text
    node = json.loads(trained.rich().to_text())
    numbers = [float(number) for number in re.findall(r"\d+\.\d+", told)[:3]]
    assert numbers == pytest.approx([node["speedup"][end] for end in ("value", "low", "high")], abs=0.005)
    assert f"{node['comparison']['restarts']} pairs of processes" in told
    assert node["comparison"]["verdict"] in told
    assert f"parity {node['parity']['verdict']}" in told


def test_the_trials_of_a_training_sort_by_their_speed_up(browser: Any, tmp_path: Path) -> None:
    page = opened(browser, tmp_path, page_of(trained.rich()))
    heads = page.find_elements("css selector", "table.sortable th")
    speed = next(number for number, head in enumerate(heads) if head.text.startswith("over the best"))
    page.execute_script("arguments[0].querySelector('button').click()", heads[speed])
    assert column(page, 0) == ["#4", "#6", "#5", "#7", "#1", "#2", "#3"]


def test_a_step_of_a_training_shows_its_loss_where_it_is_pointed_at(browser: Any, tmp_path: Path) -> None:
    page = opened(browser, tmp_path, page_of(trained.rich()))
    mark = page.find_element("css selector", "#figure-course .mark circle.spot")
    webdriver.ActionChains(page).move_to_element(mark).perform()
    tip = page.find_element("id", "tip")
    assert tip.is_displayed()
    assert re.match(r"steps \d+ to \d+: loss [\d.]+ \[[\d.]+ to [\d.]+\], \d+ µs a step, after ", tip.text)


@pytest.mark.parametrize(
    "make", [planted_results.rich, trained.rich, trained.refused], ids=lambda make: make.__module__
)
def test_no_text_of_a_drawing_is_cut_off(browser: Any, tmp_path: Path, make: Callable[[], Document]) -> None:
    assert opened(browser, tmp_path, page_of(make())).execute_script(OUTSIDE) == []


def test_the_table_sorts_by_number_up_and_down_when_a_header_is_clicked(
    browser: Any, tmp_path: Path, rich: ResultDocument
) -> None:
    page = opened(browser, tmp_path, render(rich))
    heads = page.find_elements("css selector", "table.sortable th")
    race = next(number for number, head in enumerate(heads) if head.text.startswith("race"))
    for direction, sign in (("ascending", 1), ("descending", -1)):
        page.execute_script("arguments[0].querySelector('button').click()", heads[race])
        speeds = [float(text.split(" ")[0]) for text in column(page, race) if text != "-"]
        assert heads[race].get_attribute("aria-sort") == direction
        assert speeds == sorted(speeds, key=lambda speed, sign=sign: sign * speed)  # type: ignore[misc]
        assert len(speeds) > 20
        assert column(page, race)[-1] == "-"


def test_numbers_sort_as_numbers_and_not_as_words(browser: Any, tmp_path: Path, rich: ResultDocument) -> None:
    page = opened(browser, tmp_path, render(rich))
    for expected in (range(1, 41), range(40, 0, -1)):
        page.execute_script("document.querySelector('table.sortable th button').click()")
        assert column(page, 0) == [f"#{number}" for number in expected]


def test_the_table_sorts_by_words(browser: Any, tmp_path: Path, rich: ResultDocument) -> None:
    page = opened(browser, tmp_path, render(rich))
    page.execute_script("document.querySelectorAll('table.sortable th')[2].querySelector('button').click()")
    outcomes = [text.lower() for text in column(page, 2)]
    assert outcomes == sorted(outcomes)
    assert len(set(outcomes)) > 4


def test_a_mark_shows_its_value_where_it_is_pointed_at(browser: Any, tmp_path: Path, rich: ResultDocument) -> None:
    page = opened(browser, tmp_path, render(rich))
    mark = page.find_element("css selector", "#figure-front .mark polygon.original")
    webdriver.ActionChains(page).move_to_element(mark).perform()
    tip = page.find_element("id", "tip")
    assert tip.is_displayed()
    assert tip.text == "the original: 2.77 ms, the reference of every loss"


def test_both_colour_schemes_are_drawn_and_differ(browser: Any, tmp_path: Path, rich: ResultDocument) -> None:
    page = opened(browser, tmp_path, render(rich))
    paper = {}
    for scheme in ("light", "dark"):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        paper[scheme] = page.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert variety(page.get_screenshot_as_png()) > 60
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 22, 24)"}


def variety(png: bytes) -> int:
    """How many different bytes a picture's rows are made of; a blank one has a handful."""
    rows, place = b"", 8
    while place < len(png):
        size, kind = int.from_bytes(png[place : place + 4], "big"), png[place + 4 : place + 8]
        rows += png[place + 8 : place + 8 + size] if kind == b"IDAT" else b""
        place += size + 12
    return len(set(zlib.decompress(rows)))


def test_a_blank_page_would_be_found_blank(browser: Any, tmp_path: Path) -> None:
    page = opened(browser, tmp_path, "<!DOCTYPE html><title>blank</title>")
    assert variety(page.get_screenshot_as_png()) < 20


@pytest.mark.parametrize("make", [planted_results.rich, trained.rich], ids=lambda make: make.__module__)
def test_on_a_narrow_screen_the_page_does_not_scroll_sideways(
    browser: Any, tmp_path: Path, make: Callable[[], Document]
) -> None:
    page = opened(browser, tmp_path, page_of(make()))
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    width = page.execute_script("return document.documentElement.scrollWidth")
    tops = page.execute_script(
        "return [...document.querySelectorAll('figure')].slice(0, 2).map(f => f.getBoundingClientRect().left)"
    )
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert width <= 390
    assert tops[0] == tops[1]


def test_the_page_can_be_printed(browser: Any, tmp_path: Path, rich: ResultDocument) -> None:
    printed = base64.b64decode(opened(browser, tmp_path, render(rich)).print_page())
    assert printed.startswith(b"%PDF")
    assert printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") + printed.count(b"/Type/Page") >= 1


@pytest.mark.parametrize(
    ("planted", "directive"),
    [
        ("<script>window.pwned = 1</script>", "script-src"),
        ("<img src='data:image/png;base64,AAAA' onerror='window.pwned = 1'>", "img-src"),
        ("<style>h1 { display: none }</style>", "style-src"),
        ("<iframe src='data:text/html,x'></iframe>", "frame-src"),
    ],
)
def test_what_would_be_slipped_into_the_page_is_refused_by_its_policy(
    browser: Any, tmp_path: Path, rich: ResultDocument, planted: str, directive: str
) -> None:
    page = opened(browser, tmp_path, render(rich).replace("</main>", f"{planted}</main>"))
    found = page.execute_script("return window.violations")
    assert any(name.startswith(directive) for name in found), found
    assert page.execute_script("return window.pwned") is None
    assert page.find_element("tag name", "h1").is_displayed()
