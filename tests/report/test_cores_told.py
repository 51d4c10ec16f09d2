"""The line and the row on what more cores made of a call."""

from __future__ import annotations

import dataclasses
import json

from vivace.core.compute import Cores, CoresCount
from vivace.core.measurement import Interval
from vivace.core.result import Result
from vivace.report.html.page import render
from vivace.report.machinery import cores_words
from vivace.report.results import ResultDocument, to_document
from vivace.report.terminal import result_block

SERIAL = Interval(0.1, 0.08, 0.12)
SEEN = Cores("native-program", (CoresCount(2, 1, 2, Interval(1.8, 1.7, 1.9)),), SERIAL, SERIAL, is_fitted=True)


def test_the_report_tells_them_in_the_document_on_the_page_and_in_the_terminal(result: Result) -> None:
    seen = dataclasses.replace(result, cores=(SEEN,))

    document = to_document(seen)
    words = cores_words(document.cores[0])

    assert json.loads(document.to_text())["cores"][0]["kind"] == "MEASURED"
    assert ResultDocument.model_validate_json(document.to_text()) == document
    assert "serial part, fitted: 0.1 [" in words and "by Amdahl (at most 10 times on any number)" in words
    assert "by Gustafson (" in words and "MEASURED in the race" in words
    assert "by Amdahl" in render(document) and "by Gustafson" in render(document)
    assert any(words in str(part) for part in result_block(seen).renderables)  # type: ignore[attr-defined]
