"""The benchmark's table says what the result files say, and counts only peers whose quality held."""

from __future__ import annotations

import importlib
import json

import pytest
import torch

import peers
import prepare
import race
import table
from vivace.core.errors import WorkerFailure
from vivace.core.measurement import Outcome
from vivace.measure.process import Phase
from workloads import decoder_prefill, speech_encoder, text_encoder, unet

HELD, BROKEN = {"verdict": "HELD"}, {"verdict": "NOT HELD"}


def an_arm(value, quality=HELD):
    speedup = {"value": value, "low": value - 0.1, "high": value + 0.1}
    return {"outcome": "ok", "speedup": speedup, "quality": quality}


ARMS = {
    "vivace": an_arm(3.0),
    "inference_mode": an_arm(1.1),
    "torch_compile": an_arm(1.5),
    "torch_compile_freezing": an_arm(1.7),
    "torch_compile_max_autotune": {"outcome": "timeout", "reason": "took longer than 180 s"},
    "torch_compile_bf16": an_arm(2.9, BROKEN),
    "onnxruntime_default": an_arm(2.0),
    "onnxruntime_dynamic_int8": {"outcome": "failed", "reason": "no such operator"},
    "onnxruntime_static_int8": {"outcome": "failed", "reason": "no such operator"},
    "openvino_default": an_arm(2.5),
    "openvino_int8": an_arm(4.0, BROKEN),
    "torchao_dynamic_int8": an_arm(0.5, BROKEN),
    "torchao_static_int8": an_arm(0.7, BROKEN),
    "neural_compressor_int8": {"outcome": "not installed", "reason": "neural_compressor missing"},
    "olive_default": {"outcome": "failed", "reason": "no such operator"},
    "olive_int8": {"outcome": "timeout", "reason": "took longer than 180 s"},
}
RESULT = {
    "date": "2026-01-02",
    "workload": "digits_cnn",
    "arms": ARMS,
    "ours_over_best_peer": {"value": 1.2, "low": 1.1, "high": 1.3},
    "machine": {"processor": "A processor", "cores": 2, "versions": "torch 2.13.0"},
    "conditions": {"effort": {"time": "2m", "restarts": 3}},
}


def row(result):
    return [cell.strip() for cell in table.table([result]).splitlines()[2].strip("|").split("|")]


def told(arms):
    """The contenders when each is judged as its arm says, and who was judged."""
    asked = []
    found = race.contenders(arms, lambda name: asked.append(name) or arms[name]["quality"]["verdict"])
    return found, asked


def test_the_contender_is_the_fastest_peer_whose_quality_held():
    assert told(ARMS)[0] == ["openvino_default"]


def test_a_peer_that_comes_near_the_fastest_is_a_contender_too():
    assert told({**ARMS, "olive_default": an_arm(2.4)})[0] == ["openvino_default", "olive_default"]


def test_of_many_peers_that_come_near_two_are_contenders():
    near = {name: an_arm(2.2 + 0.1 * i) for i, name in enumerate(("torch_compile", "olive_default", "olive_int8"))}
    assert told({**ARMS, **near})[0] == ["openvino_default", "olive_int8"]


def test_peers_are_judged_from_the_fastest_on_and_no_more_than_needed():
    assert told(ARMS)[1] == ["openvino_int8", "torch_compile_bf16", "openvino_default"]


def test_we_are_not_our_own_peer():
    assert told({"vivace": an_arm(3.0)})[0] == []


def test_nothing_is_compared_with_ours_where_it_failed():
    assert told({**ARMS, "vivace": {"outcome": "failed", "reason": "-"}}) == ([], [])


@pytest.mark.parametrize(
    ("low", "high", "unsettled"), [(2.0, 2.4, False), (2.0, 2.6, True), (2.0, None, True), (0.0, 2.0, True)]
)
def test_a_wide_interval_ranks_nobody(low, high, unsettled):
    assert race.is_unsettled({"value": 2.2, "low": low, "high": high}) is unsettled


def test_a_tool_whose_quality_was_not_judged_has_a_dagger():
    slow = {**RESULT, "arms": {**ARMS, "inference_mode": an_arm(1.1, {"verdict": race.NOT_JUDGED})}}
    assert row(slow)[2] == "1.10†"


def test_each_tool_is_shown_in_its_fastest_setting_that_held_the_budget():
    assert row(RESULT)[:6] == [
        "digits-cnn", "3.00 [2.90, 3.10]", "1.10", "1.70 (freezing)", "2.00 (fp32)", "2.50 (default)",
    ]  # fmt: skip


def test_a_tool_outside_the_budget_is_in_brackets_and_one_without_numbers_says_why():
    assert row(RESULT)[6:] == [
        "(0.70) NOT HELD (static int8)", "not installed", "failed, took longer than 180 s", "**1.20** [1.10, 1.30]",
    ]  # fmt: skip


def test_the_share_of_the_ceiling_is_shown_where_it_was_measured():
    compute = {"share": 0.213, "bound": "overhead", "precision": "int8"}
    assert row({**RESULT, "optimize": {"compute": compute}})[-2] == "21% int8"


def test_a_peer_that_was_not_run_is_not_called_failed():
    alone = {**RESULT, "arms": {"vivace": an_arm(3.0)}}
    rows = table.table([alone, RESULT]).splitlines()
    assert rows[2].split("|")[3].strip() == "not run"


def test_a_tool_that_was_run_nowhere_has_no_column():
    assert row({**RESULT, "arms": {"vivace": an_arm(3.0)}}) == [
        "digits-cnn", "3.00 [2.90, 3.10]", "**1.20** [1.10, 1.30]",
    ]  # fmt: skip


def test_the_closing_line_names_the_geometric_mean_and_the_worst_workload():
    other = {**RESULT, "workload": "lstm", "ours_over_best_peer": {"value": 0.3, "low": 0.2, "high": 0.4}}
    assert table.closing([RESULT, other]) == (
        "Geometric mean of Vivace / best peer over 2 workloads: **0.60**; worst: **0.30** (lstm)."
    )


def test_the_closing_line_is_left_out_without_a_ratio():
    assert table.closing([{**RESULT, "ours_over_best_peer": None}]) == ""


def test_a_peer_that_runs_into_its_deadline_is_told_from_one_that_fails():
    late = race.failed(WorkerFailure(Outcome.TIMEOUT, "first_call took longer than 180 seconds"))
    broken = race.failed(WorkerFailure(Outcome.CONVERT_FAILED, "no such operator"))
    assert (late["outcome"], late["reason"]) == ("timeout", f"took longer than {race.DEADLINE:g} s")
    assert (broken["outcome"], "no such operator" in broken["reason"]) == ("failed", True)


def test_a_peer_whose_package_is_absent_is_not_installed(monkeypatch):
    monkeypatch.setattr("peers.olive_default.NEEDS", ("a_package_that_is_not_there",))
    assert peers.missing("olive_default") == ["a_package_that_is_not_there"]


def test_a_peer_is_named_by_its_tool_and_its_setting():
    assert peers.title("torch_compile_bf16") == "torch.compile (bf16)"


def test_no_peer_has_longer_than_the_deadline_for_any_phase():
    longest = max(race.PEER_LIMITS.seconds(phase) for phase in Phase)
    assert longest == race.DEADLINE


def test_the_table_carries_its_conditions():
    assert "A processor, 2 cores; torch 2.13.0; 2026-01-02" in table.table([RESULT])


def test_the_table_goes_between_the_marks_of_the_page(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- results: begin (x) -->\nold\n<!-- results: end -->\nafter\n")
    (tmp_path / "workload-1-digits_cnn.json").write_text(json.dumps(RESULT))
    table.write([page], tmp_path)
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1], "old" in lines) == ("before", "after", False)
    assert "| digits-cnn |" in page.read_text()


def test_rows_of_an_older_processor_have_a_table_of_their_own(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("<!-- results: begin (x) -->\n<!-- results: end -->\n<!-- older processor: begin (x) -->\nold\n"
                    "<!-- older processor: end -->\nafter\n")  # fmt: skip
    older = {**RESULT, "workload": "lstm", "machine": {**RESULT["machine"], "processor": "An older one"}}
    (tmp_path / table.OLDER).mkdir()
    (tmp_path / "workload-1-digits_cnn.json").write_text(json.dumps(RESULT))
    (tmp_path / table.OLDER / "workload-6-lstm.json").write_text(json.dumps(older))

    table.write([page], tmp_path)

    above, below = page.read_text().split("<!-- results: end -->")
    assert ("| digits-cnn |" in above, "| lstm |" in above) == (True, False)
    assert ("| lstm |" in below, "| digits-cnn |" in below, "old\n" in below) == (True, False, False)
    assert "An older one" in (tmp_path / table.OLDER / "table.md").read_text()


def test_the_geometric_mean_of_a_gain_and_the_same_loss_is_one():
    assert table.geometric_mean([4.0, 0.25]) == pytest.approx(1.0)


def test_every_workload_and_peer_of_the_benchmark_has_its_file():
    folder = table.ROOT / "benchmarks"
    workloads = {file.stem for file in (folder / "workloads").glob("*.py")} - {"__init__"}
    files = {file.stem for file in (folder / "peers").glob("*.py")} - {"__init__", "eager", "ours"}
    assert (workloads, files) == (set(race.WORKLOADS), {*peers.PEERS, *peers.FOR_CARDS})


@pytest.mark.parametrize("peer", [*peers.PEERS, *peers.FOR_CARDS])
def test_every_peer_opens_a_model_and_needs_nothing_to_be_imported(peer):
    module = importlib.import_module(f"peers.{peer}")
    assert callable(module.open_peer)


@pytest.mark.parametrize("workload", race.WORKLOADS)
def test_every_workload_has_the_budget_of_one_point_that_the_table_names(workload):
    assert importlib.import_module(f"workloads.{workload}").BUDGET.drop == 0.01


def test_what_is_kept_is_made_once(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "WORK", tmp_path)
    first = prepare.kept("one", lambda: {"x": torch.ones(2)})
    again = prepare.kept("one", lambda: {"x": torch.zeros(2)})
    assert torch.equal(first["x"], again["x"])


def test_the_rank_of_the_right_passage_is_the_score():
    metric = text_encoder.ReciprocalRank(torch.eye(3))
    output = torch.tensor([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1]])
    assert metric(output, torch.tensor([0, 2])).tolist() == [1.0, pytest.approx(1 / 3)]


def test_the_overlap_of_masks_is_intersection_over_union():
    called = torch.tensor([[[[1.0, 1.0], [-1.0, -1.0]]]])
    ink = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    assert unet.overlap(called, ink).tolist() == [pytest.approx(1 / 3)]


def test_rotation_leaves_attention_to_distance_alone():
    cosines, sines = decoder_prefill.rotation()
    q, k = torch.randn(2, cosines.shape[1], generator=torch.Generator().manual_seed(0))
    at = [decoder_prefill.rotated(x, cosines, sines) for x in (q, k)]
    torch.testing.assert_close(at[0][5] @ at[1][2], at[0][105] @ at[1][102], rtol=1e-4, atol=1e-4)


def test_the_keys_of_the_keypad_sound_at_their_two_frequencies():
    quiet = speech_encoder.press(torch.tensor([5]), torch.tensor([[0.0, 2.0]]), torch.zeros(1, 2))
    spectrum = torch.fft.rfft(quiet[0]).abs()
    loudest = sorted((spectrum.topk(2).indices / speech_encoder.SECONDS).tolist())
    assert loudest == [pytest.approx(770, abs=1), pytest.approx(1336, abs=1)]


def test_a_text_that_is_not_there_is_named_with_the_way_to_give_it(monkeypatch):
    monkeypatch.setenv("VIVACE_DATA", "/nowhere")
    with pytest.raises(prepare.NotAvailable, match="VIVACE_DATA"):
        text_encoder.halves()
