"""The committed rows of benchmarks/hardware.py: within their times, proved, and as the estimates said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

RESULT = Path(__file__).parents[1] / "benchmarks" / "results" / "hardware.json"
CASES = json.loads(RESULT.read_text(encoding="utf-8"))["cases"]
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
