"""The committed rows of benchmarks/hardware.py: within their times, proved, and as the estimates said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
