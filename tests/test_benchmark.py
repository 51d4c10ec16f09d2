"""The benchmark's table says what the result files say, and counts only peers whose quality held."""

from __future__ import annotations

import json

import pytest

import race
import table

HELD, BROKEN = {"verdict": "HELD"}, {"verdict": "NOT HELD"}


def an_arm(value, quality=HELD):
    speedup = {"value": value, "low": value - 0.1, "high": value + 0.1}
    return {"outcome": "ok", "speedup": speedup, "quality": quality}


ARMS = {
    "vivace": an_arm(3.0),
    "inference_mode": an_arm(1.1),
    "torch_compile": {"outcome": "failed", "reason": "no compiler"},
    "onnxruntime_default": an_arm(2.0),
    "openvino_default": an_arm(2.5),
    "openvino_int8": an_arm(4.0, BROKEN),
}
RESULT = {
    "date": "2026-01-02",
    "workload": "digits_cnn",
    "arms": ARMS,
    "ours_over_best_peer": {"value": 1.2, "low": 1.1, "high": 1.3},
    "machine": {"processor": "A processor", "cores": 2, "versions": "torch 2.13.0"},
    "conditions": {"effort": {"time": "2m", "restarts": 3}},
}


def test_the_best_peer_is_the_fastest_whose_quality_held():
    assert race.best_peer(ARMS) == "openvino_default"


def test_we_are_not_our_own_peer():
    assert race.best_peer({"vivace": an_arm(3.0)}) is None


def test_the_table_shows_intervals_failures_and_broken_budgets():
    row = table.table([RESULT]).splitlines()[2]
    assert row == (
        "| digits-cnn | 3.00 [2.90, 3.10] | 1.10 [1.00, 1.20] | failed | 2.00 [1.90, 2.10] | 2.50 [2.40, 2.60] "
        "| (4.00 [3.90, 4.10]) NOT HELD | **1.20** [1.10, 1.30] |"
    )


def test_the_table_carries_its_conditions():
    assert "A processor, 2 cores; torch 2.13.0; 2026-01-02" in table.table([RESULT])


def test_the_table_goes_between_the_marks_of_the_page(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- results: begin (x) -->\nold\n<!-- results: end -->\nafter\n")
    (tmp_path / "workload-1-digits_cnn.json").write_text(json.dumps(RESULT))
    table.write(page, tmp_path)
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1], "old" in lines) == ("before", "after", False)
    assert "| digits-cnn |" in page.read_text()


def test_the_geometric_mean_of_a_gain_and_the_same_loss_is_one():
    assert table.geometric_mean([4.0, 0.25]) == pytest.approx(1.0)


def test_every_workload_and_peer_of_the_benchmark_has_its_file():
    folder = table.ROOT / "benchmarks"
    workloads = {file.stem for file in (folder / "workloads").glob("*.py")} - {"__init__"}
    peers = {file.stem for file in (folder / "peers").glob("*.py")} - {"__init__", "eager", "ours"}
    assert (workloads, peers) == (set(race.WORKLOADS), set(race.PEERS))
