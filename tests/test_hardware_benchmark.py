"""The committed rows of benchmarks/hardware.py: within their times, proved, and as the estimates said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vivace.hardware.chip.place import placing_seconds

RESULT = Path(__file__).parents[1] / "benchmarks" / "results" / "hardware.json"
FOUND = json.loads(RESULT.read_text(encoding="utf-8"))
CASES = FOUND["cases"]
each_case = pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])


@each_case
def test_a_network_is_quicker_than_it_has_to_be_at_the_quality_of_the_original(case):
    result = case["result"]

    assert result["latency_seconds"] < case["allowed_seconds"]
    assert result["quality"]["verdict"] == "HELD"
    assert result["quality"]["drop"] < 0.01


@each_case
def test_a_network_is_placed_with_three_seeds_and_proved_on_ten_thousand_vectors(case):
    result = case["result"]

    assert result["status"] == "placed and routed"
    assert len(result["placement"]["seeds"]) == 3
    assert result["proof"]["vectors"] >= 10_000
    assert result["latency_cycles"] == result["proof"]["latency"]


@each_case
def test_from_command_to_report_takes_at_most_five_minutes(case):
    assert case["taken_seconds"] <= 300


@each_case
def test_placing_took_what_was_estimated_to_within_a_factor_of_two(case):
    result = case["result"]

    assert 0.5 < result["seconds"]["placing"] / result["likely_placing_seconds"] < 2


def test_beside_hls4ml_pytorch_and_the_design_compute_the_same_integers_bit_for_bit():
    ours = FOUND["beside_hls4ml"]["vivace"]

    assert ours["integers_that_pytorch_computes_otherwise"] == 0
    assert ours["integers_compared"] == 10 * FOUND["beside_hls4ml"]["samples"]
    assert ours["samples_simulated_without_a_difference"] == FOUND["beside_hls4ml"]["samples"] >= 1000
    assert ours["accuracy"] >= FOUND["beside_hls4ml"]["accuracy_of_pytorch"] - 0.01


def test_what_hls4ml_answers_otherwise_is_kept_with_its_version_and_its_settings():
    peer = FOUND["beside_hls4ml"]["hls4ml"]

    assert {"hls4ml", "torch", "numpy", "compiler", "backend", "io_type"} <= set(peer["conditions"])
    for row in peer["precisions"].values():
        assert row["outputs_that_differ_from_float"] > 0.99
        assert row["largest_difference_from_float"] > 0
        assert 0 <= row["top_1_agreement"] <= 1


def told_in_the_guide() -> str:
    return " ".join((RESULT.parents[2] / "docs" / "guide" / "fpga.md").read_text(encoding="utf-8").split())


def test_the_guide_tells_the_committed_figures_beside_hls4ml():
    told = told_in_the_guide()
    peer = FOUND["beside_hls4ml"]["hls4ml"]

    assert f"hls4ml {peer['conditions']['hls4ml']}" in told
    for row in (*peer["precisions"].values(), FOUND["beside_hls4ml"]["vivace"]):
        assert f"{row['largest_difference_from_float']:.2f} | {row['top_1_agreement']:.1%}" in told


def sparse_rows(unrolled: bool) -> list[dict]:
    rows = [row for row in FOUND["sparse"]["rows"] if row["unrolled"] is unrolled]
    return sorted(rows, key=lambda row: row["sparsity"])


def test_zeros_without_a_pattern_save_tables_of_an_unrolled_network():
    rows = sparse_rows(unrolled=True)
    tables = [row["resources"]["tables"] for row in rows]

    assert len(rows) >= 3
    assert tables == sorted(tables, reverse=True)
    assert tables[-1] < tables[0] / 3
    assert {row["resources"]["memory_blocks"] for row in rows} == {0}


def test_zeros_save_next_to_nothing_of_a_folded_network():
    dense, sparse = sparse_rows(unrolled=False)

    assert sparse["resources"]["tables"] > 0.9 * dense["resources"]["tables"]


@pytest.mark.parametrize("row", FOUND["sparse"]["rows"], ids=lambda row: f"{row['unrolled']}-{row['sparsity']:.0%}")
def test_a_pruned_network_is_proved_and_as_accurate_in_integers_as_in_floats(row):
    assert row["vectors_without_a_difference"] >= 10_000
    assert abs(row["accuracy"] - row["accuracy_of_pytorch"]) <= 0.01


def test_the_guide_tells_the_committed_tables_by_sparsity():
    told = told_in_the_guide()

    for row in sparse_rows(unrolled=True):
        right = f"{row['sparsity']:.0%} | {row['resources']['tables']:,} | {row['accuracy_of_pytorch']:.1%}"
        assert f"{right}, {row['accuracy']:.1%}" in told


def test_an_unrolled_network_of_many_weights_would_be_placed_for_longer_than_is_allowed():
    largest = sparse_rows(unrolled=True)[0]

    assert placing_seconds(largest["resources"]["cells"]) > 600
