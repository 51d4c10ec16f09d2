"""What each figure of a training's page shows, and the sentence that stands where something was not measured."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from html import unescape
from typing import Any

import planted_training_run
import pytest

from vivace.core.measurement import Interval, SpeedVerdict
from vivace.core.training.run import Scaling
from vivace.report.html.figure import Figure
from vivace.report.reading import read_training
from vivace.report.training import TrainingDocument, headline
from vivace.report.training_page import agreements, around, course, gains, memory, phases, processes, ratios, tried
from vivace.report.training_page.page import FIGURES, render

Draw = Callable[[TrainingDocument], Figure]
FIGURE = pytest.mark.parametrize("draw", [one.figure for one in FIGURES], ids=lambda one: one.__module__.split(".")[-1])


@pytest.fixture(scope="module")
def run() -> TrainingDocument:
    return planted_training_run.rich()


@pytest.fixture(scope="module")
def as_given() -> TrainingDocument:
    return planted_training_run.as_given()


def changed(document: TrainingDocument, **fields: Any) -> TrainingDocument:
    return document.model_copy(update=fields)


def tips(figure: Figure) -> list[str]:
    """What marks show when they are pointed at."""
    return [unescape(tip) for drawing in figure.drawings for tip in re.findall(r'class="mark"><title>(.*?)<', drawing)]


@FIGURE
def test_each_figure_has_drawings_with_words_and_a_table_and_says_n_method_and_units(
    draw: Draw, run: TrainingDocument
) -> None:
    found = draw(run)
    assert found.drawings
    assert all(part for part in (found.said, found.counted, found.method, found.units, found.tables))
    assert "MEASURED" in found.units
    for drawing in found.drawings:
        assert 'role="img"' in drawing
        assert re.search(r"<title id=[^>]*>[^<]+</title><desc id=[^>]*>[^<]+</desc>", drawing)


@FIGURE
def test_what_was_not_measured_is_said_in_a_sentence(draw: Draw, as_given: TrainingDocument) -> None:
    found = draw(as_given)
    assert found.said.endswith(".")
    assert found.drawings or not found.tables


def test_the_numbers_of_figures_are_one_to_eight(run: TrainingDocument) -> None:
    assert [module.figure(run).number for module in FIGURES] == list(range(1, 9))


@pytest.mark.parametrize("make", ["rich", "as_given", "refused", "extreme", "hostile"])
def test_a_document_reads_back_and_its_page_has_no_number_that_is_none(make: str) -> None:
    document = getattr(planted_training_run, make)()
    again = read_training(document.to_text())
    assert again == document
    page = render(again)
    assert page == render(document)
    assert page.count("<figure") == 8
    assert not re.search(r'(?:x|y|x1|y1|x2|y2|cx|cy|r|width|height|points)="[^"]*(?:nan|inf)', page)


@pytest.mark.parametrize("original", [[], [[]], [[1.0, 0.5], []]])
def test_losses_over_seeds_that_are_not_there_are_not_drawn(run: TrainingDocument, original: list[list[float]]) -> None:
    node = run.model_dump()
    node["parity"]["curve"] |= {"original": original, "plan": [[1.0, 0.5], [1.0, 0.5]]}
    found = agreements.figure(TrainingDocument.model_validate(node))
    assert len(found.drawings) == 1


def test_names_without_end_are_cut(run: TrainingDocument) -> None:
    page = render(changed(run, name="x" * 100_000, plan_name="y" * 100_000))
    assert len(page.encode()) < 600_000


def test_the_page_is_under_a_megabyte(run: TrainingDocument) -> None:
    longest = changed(run, course=planted_training_run.course(steps=2 * 499))
    assert len(render(longest).encode()) < 1_000_000


def test_the_first_line_says_the_gain_its_interval_the_pairs_and_both_verdicts(run: TrainingDocument) -> None:
    assert headline(run) == (
        "digits-mlp: a step is 4.10x [4.02, 4.18] as fast with sample-cache + fused-optimizer + "
        "compiled-training(scope=loss) (95% interval, 3 pairs of processes, MEASURED: FASTER; parity HELD)"
    )


def test_a_plan_that_was_not_shown_to_be_faster_is_not_called_fast(run: TrainingDocument) -> None:
    node = run.model_dump()
    node["comparison"] |= {"speedup": Interval(1.1, 0.9, 1.3), "verdict": SpeedVerdict.UNDECIDED}
    told = headline(TrainingDocument.model_validate(node))
    assert "whose step was not shown to be faster: 1.10x [0.90, 1.30]" in told
    assert "UNDECIDED" in told


def test_a_plan_that_was_asked_for_is_not_said_to_have_lost(run: TrainingDocument) -> None:
    told = headline(changed(run, comparison=None))
    assert "trained with sample-cache" in told
    assert "which was not timed; parity HELD" in told


def test_nothing_won_is_said_first_with_the_reason(as_given: TrainingDocument) -> None:
    page = render(changed(as_given, trials=planted_training_run.trials()[1:4]))
    first = re.search(r"<h1>(.*?)</h1>", page, re.DOTALL)
    assert first is not None
    assert "no plan was faster and the same, so it was trained as given" in first[1]
    assert "Why: of 3 trials: 1 unsupported, 1 quality failed, 1 not faster; none was kept." in first[1]


def test_a_plan_that_trains_differently_is_the_reason_by_its_tensor() -> None:
    assert "the plan trains differently: gradient of layer0.weight in step 0" in (
        around.why_as_given(planted_training_run.refused())
    )


def test_phases_are_told_before_and_after_with_what_bounds_them(run: TrainingDocument) -> None:
    found = phases.figure(run)
    assert "The original: 4 ms a step, input-bound: 62% of a step is waiting for its batch." in found.said
    assert "overhead-bound: in 56% of a step no operator runs" in found.said
    assert "Input is no longer the bound." in found.said
    assert "26 MFLOP: 4.33% → 19.26% of the measured ceiling." in found.said
    shown = tips(found)
    assert "original: waiting for input 2.5 ms" in shown
    assert sum(": no operator ran in " in tip for tip in shown) == 4
    assert "the counted operations take 0.173 ms at the measured ceiling" in shown


def test_a_step_that_is_one_piece_has_one_phase_beside_waiting(run: TrainingDocument) -> None:
    whole = planted_training_run.diagnosis(forward_seconds=0.0, backward_seconds=0.0, update_seconds=0.0,
                                           whole_seconds=1.5e-3)  # fmt: skip
    assert "original: forward and backward, as one 1.5 ms" in tips(phases.figure(changed(run, diagnosis=whole)))
    assert "whole step" not in phases.figure(run).drawings[0]


def test_without_a_plan_s_step_there_is_no_after(as_given: TrainingDocument) -> None:
    found = phases.figure(as_given)
    assert "No plan's step was diagnosed, so there is no after." in found.said
    assert "the ceiling was not measured (vivace doctor)" in found.said


def test_the_waterfall_has_every_trial_its_reason_and_the_confirmation(run: TrainingDocument) -> None:
    found = gains.figure(run)
    assert found.said == (
        "Kept: sample-cache, fused-optimizer, compiled-training(scope=loss). Timed and not clearly faster: "
        "threads(count=1), compiled-training(scope=step). Refused or failed before it was timed: channels-last, "
        "bfloat16."
    )
    shown = tips(found)
    assert "with sample-cache: 2.6x [2.52, 2.68] over the best before it; kept" in shown
    assert "with threads(count=1): 0.8x [0.776, 0.824] over the best before it; not faster" in shown
    assert any(tip.startswith("bfloat16: quality failed: gradient of layer0.weight in step 0") for tip in shown)
    assert "the whole plan over the original: 4.1x [4.02, 4.18]" in shown
    assert found.drawings[0].count('class="arm"') == 3 * (5 + 1)  # an interval and its caps of all that was timed


def test_several_processes_are_told_with_the_laws_fitted_to_what_was_timed(run: TrainingDocument) -> None:
    found = processes.figure(run)
    assert "A step took 1.14 ms on 8 processes and 4 ms on one: 3.5 times as fast, MEASURED in blocks" in found.said
    assert "serial part fitted to 2, 4, 8 copies: 0.18 [0.17, 0.19] by Amdahl and " in found.said
    assert "They started again 1 time." in found.said
    assert {"2 processes: 1.7x", "4 processes: 0.8x"} <= set(tips(found))
    layouts, held, restarts = found.tables
    assert [row[0].text for row in layouts.rows] == ["data=2", "data=4", "data=8", "shard=4"]
    assert [row[1].text for row in held.rows] == [f"data {n}" for n in range(8)]
    assert restarts.rows[0][1].text == planted_training_run.RESTART


def test_one_count_of_processes_has_the_serial_part_that_its_speed_up_implies(run: TrainingDocument) -> None:
    found = processes.figure(changed(run, scaling=Scaling(2, 4e-3, 2.5e-3), restarts=[]))
    assert (
        "1.6 times as fast, MEASURED one after the other; serial part 0.25, which this speed-up implies" in found.said
    )
    assert "by Amdahl at most 4 times on any number, by Gustafson 1.75 times the work" in found.said


def test_more_than_processes_can_give_is_no_speed_up(run: TrainingDocument) -> None:
    found = processes.figure(changed(run, scaling=Scaling(2, 273e-3, 26.7e-3), restarts=[]))
    assert "more than 2 processes can give" in found.said
    assert "MEASURED" not in found.said.partition("more than 2 processes")[2][:120]
    assert "by Amdahl" not in found.said


def test_processes_that_are_slower_are_called_so_and_who_trained_is_told(run: TrainingDocument) -> None:
    slower = changed(run, scaling=Scaling(2, 1e-3, 4e-3), restarts=[])
    assert "talking to each other costs more than these processes save" in processes.figure(slower).said
    assert "one process would have been faster" in processes.figure(slower).said
    assert "So one process trained." in processes.figure(changed(slower, ranks=[])).said


def test_a_layout_that_was_asked_for_and_is_slower_is_said_first(run: TrainingDocument) -> None:
    node = run.model_dump()
    node["comparison"] |= {"speedup": Interval(0.4, 0.3, 0.5), "verdict": SpeedVerdict.SLOWER}
    told = headline(TrainingDocument.model_validate(node))
    assert "as was asked for: its step is SLOWER than in one process, 0.40x [0.30, 0.50] as fast" in told


def test_the_command_of_a_run_of_several_processes_has_their_layout(run: TrainingDocument) -> None:
    options = {**run.conditions["options"], "team": {"processes": 4, "layout": "data=2,shard=2"}}
    told = dict(around.commands(changed(run, conditions={**run.conditions, "options": options})))
    assert "--processes 4 --layout data=2,shard=2" in told["the whole run, in another folder"]


def test_a_bar_begins_where_the_plan_that_it_was_timed_against_ended(run: TrainingDocument) -> None:
    first, _, _, _, other, *_ = (trial.model_copy() for trial in run.trials)
    over_the_original = other.model_copy(update={"over_name": "original"})
    one, two = gains._starts([first, over_the_original])[:2]
    assert (one, two) == (1.0, 1.0)


def test_a_bar_begins_where_the_last_plan_that_was_kept_ended(run: TrainingDocument) -> None:
    left = {one: (float(x), float(width)) for one, x, width in re.findall(
        r"<title>with ([^:]+):.*?<rect x=\"([\d.]+)\"[^>]*width=\"([\d.]+)\"", gains.figure(run).drawings[0]
    )}  # fmt: skip
    cache, fused, threads = left["sample-cache"], left["fused-optimizer"], left["threads(count=1)"]
    assert fused[0] == pytest.approx(sum(cache), abs=0.1)
    assert sum(threads) == pytest.approx(sum(cache), abs=0.1)


def test_blocks_are_in_time_order_above_the_original_against_itself(run: TrainingDocument) -> None:
    found = ratios.figure(run)
    assert sum(tip.startswith("block ") for tip in tips(found)) == 36 + 16
    assert found.said.startswith("FASTER: a step is 4.1x [4.02, 4.18] as fast. The smallest effect")
    assert "UNSTEADY" not in found.said


def test_each_tensor_shows_its_error_what_is_allowed_and_the_original_s_own(run: TrainingDocument) -> None:
    found = agreements.figure(run)
    assert sum("relative error" in tip for tip in tips(found)) == 84
    assert "36 of gradients, 12 of updates, 36 of buffers" in found.counted
    assert found.said.startswith("HELD: all of 36 tensors agree")
    assert "Batches that equal the original's to the bit: 3." in found.said
    assert "The plan's loss less the original's is 0.001 [-0.004, 0.006], margin 0.03: HELD." in found.said
    assert sum(", seed " in tip for tip in tips(found)) == 6


def test_tensors_that_are_further_off_than_allowed_are_named_in_the_drawing() -> None:
    found = agreements.figure(planted_training_run.refused())
    assert found.said.startswith("NOT HELD: gradient of layer0.weight in step 0")
    assert ">gradient of layer0.weight<" in found.drawings[0]
    assert found.drawings[0].count('class="refused-tensor"') == 2 * 4
    assert found.tables[0].rows[1][-1].text == "there is none, and the original has one"


def test_the_course_has_a_mark_for_every_span_every_epoch_and_what_was_asked_for(run: TrainingDocument) -> None:
    found = course.figure(run)
    shown = tips(found)
    assert sum(tip.startswith("steps ") and ": loss " in tip for tip in shown) >= 480
    assert "epoch 8 (step 960, 960 ms): mean loss 0.151" in shown
    assert "epoch 8: score 0.97 after 960 ms" in shown
    assert "A score of 0.95 was asked for and reached." in found.said
    assert "480 spans of 2 steps" in found.counted
    assert [len(one.rows) for one in found.tables] == [8, 480]


def test_what_was_trained_before_a_restart_is_said_not_to_be_here(run: TrainingDocument) -> None:
    resumed = changed(run, resumed_steps=400)
    assert "The first 400 steps were made before it was resumed, and are not here." in course.figure(resumed).said
    assert any(limit.startswith("It was resumed") for limit in around.limits(resumed))


def test_memory_is_told_by_kind_before_and_after_and_of_the_whole_process(run: TrainingDocument) -> None:
    found = memory.figure(run)
    assert [[cell.text for cell in row] for row in found.tables[0].rows] == [
        ["parameters", "40.0 kB", "40.0 kB"],
        ["gradients", "40.0 kB", "40.0 kB"],
        ["optimizer", "80.0 kB", "80.0 kB"],
        ["activations", "230 kB", "140 kB"],
        ["whole process, peak", "310 MB", "310 MB"],
    ]


def test_every_trial_is_in_the_table_with_its_reason(run: TrainingDocument) -> None:
    found = tried.figure(run)
    assert found.is_sorted
    assert [row[1].text for row in found.tables[0].rows] == [
        "sample-cache", "channels-last", "bfloat16", "threads(count=1)", "fused-optimizer",
        "compiled-training(scope=step)", "compiled-training(scope=loss)",
    ]  # fmt: skip
    assert found.tables[0].rows[1][-1].text == "the model has no weight of four dimensions"
    assert "pays for choosing from 22,900 steps on; this training had fewer: 960." in found.said


def test_commands_and_conditions_do_it_again(run: TrainingDocument) -> None:
    found = dict(around.commands(run))
    assert found["the whole run, in another folder"] == (
        "vivace train TARGET --out again --until 0.95 --time 2m --without bfloat16"
    )
    assert found["this page"] == "vivace report run"
    told = {row[0].text: row[1].text for row in around.machine(run).rows}
    assert told["versions"] == "torch 2.13.0, numpy 2.3.0"
    assert told["job: batch size"] == "64"
    assert "processor ticks" not in told


def test_the_operators_stand_on_the_roofline_with_the_bandwidths_that_were_measured(run: TrainingDocument) -> None:
    watched = dataclasses.replace(run.diagnosis, roofline=planted_training_run.roofline())
    found = phases.figure(read_again(changed(run, diagnosis=watched)))

    operators, bandwidths = found.tables[1:]
    rows = [[cell.text for cell in row] for row in operators.rows]
    assert ["backward", "mm", "4", "0.5", "4e+04", "60%", "3", "6", "2%", "compute"] in rows
    assert ["optimizer", "addcdiv_", "6", "0.2", "-", "-", "2", "10", "80%", "memory"] in rows
    assert [cell.text for cell in bandwidths.rows[1]][1:] == ["12.5", "1.5"]


def read_again(document: TrainingDocument) -> TrainingDocument:
    """The document after it was written and read."""
    return TrainingDocument.model_validate_json(document.to_text())
