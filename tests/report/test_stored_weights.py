"""Bytes of weights that are stored in another form: in the document, on the page, in the artifact's README."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from vivace.api.readme import readme_of
from vivace.artifact.manifest import Manifest
from vivace.core.layer import ZEROS_KEPT, StoredWeight, StoredWeights, stored_after
from vivace.core.result import Result
from vivace.report.html import around
from vivace.report.html.page import render
from vivace.report.results import ResultDocument, to_document

EACH = (StoredWeight("body.0", "CSR", 1_048_576, 106_908), StoredWeight("body.2", "2:4", 1_048_576, 557_056))


@pytest.fixture
def sparse(result: Result) -> Result:
    return dataclasses.replace(result, stored_weights=StoredWeights.of(EACH))


def test_the_document_has_the_sums_and_each_layer_and_reads_back_equal(sparse: Result) -> None:
    document = to_document(sparse)

    assert json.loads(document.to_text())["stored_weights"] == {
        "layers": 2,
        "dense_bytes": 2_097_152,
        "stored_bytes": 663_964,
        "each": [dataclasses.asdict(one) for one in EACH],
    }
    assert ResultDocument.model_validate_json(document.to_text()).stored_weights == sparse.stored_weights


def test_a_document_without_them_reads_back(result: Result) -> None:
    node = json.loads(to_document(result).to_text())
    assert node.pop("stored_weights") is None

    assert ResultDocument.model_validate(node).stored_weights is None


def test_the_page_has_a_table_of_them(sparse: Result) -> None:
    document = to_document(sparse)

    (found,) = [rows for title, rows in around.details(document) if title.startswith("weights stored otherwise")]

    assert [[cell.text for cell in row] for row in found.rows] == [
        ["body.0", "CSR", "1,048,576", "106,908"],
        ["body.2", "2:4", "1,048,576", "557,056"],
    ]
    assert "663,964 bytes for 2,097,152 in 2 layers (CSR, 2:4)" in render(document)


@pytest.mark.parametrize(("each", "times"), [(EACH, 1), ((), 0)])
def test_the_readme_says_how_many_bytes_are_stored(result: Result, each: tuple[StoredWeight, ...], times: int) -> None:
    told = dataclasses.replace(result, stored_weights=StoredWeights.of(each))
    fields: dict[str, Any] = {"executes_native_code": False, "name": "net", "vivace_version": "0", "plan_name": "p"}
    machine = {"processor": "any", "cores_allowed": 2}

    text = readme_of(told, cast(Manifest, SimpleNamespace(**fields, machine=machine, accepts="x")))

    assert text.count("Weights stored otherwise: 663,964 bytes for 2,097,152 in 2 layers (CSR, 2:4)") == times


def test_of_a_layer_that_was_changed_twice_the_first_dense_bytes_and_the_last_stored_ones_are_told() -> None:
    factors = stored_after([], [StoredWeight("a", "rank 8", 100, 40)])
    pruned = stored_after(factors, [StoredWeight("a", ZEROS_KEPT, 20, 20), StoredWeight("b", ZEROS_KEPT, 50, 50)])

    sparse = stored_after(pruned, [StoredWeight("a", "CSR", 20, 5)])

    assert pruned == (StoredWeight("a", f"rank 8, {ZEROS_KEPT}", 100, 40), StoredWeight("b", ZEROS_KEPT, 50, 50))
    assert sparse[0] == StoredWeight("a", "rank 8, CSR", 100, 25)
