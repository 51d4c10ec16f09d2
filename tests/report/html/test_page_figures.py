"""What each figure shows of a planted result, and the sentence that stands where something was not measured."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from html import unescape

import planted_results
import pytest

from vivace.core.compute import Overhead, Profiles
from vivace.core.measurement import Interval
from vivace.core.quality import Decisions
from vivace.report.html import (
    around,
    costs,
    decisions,
    front,
    gains,
    latency,
    profiles,
    roofline,
    sensitivity,
    timeline,
)
from vivace.report.html.figure import Figure
from vivace.report.html.page import FIGURES, render
from vivace.report.results import ResultDocument

Draw = Callable[[ResultDocument], Figure]


def tips(figure: Figure) -> list[str]:
    """What marks show when they are pointed at."""
    return [unescape(tip) for drawing in figure.drawings for tip in re.findall(r'class="mark"><title>(.*?)<', drawing)]


def changed(document: ResultDocument, **fields: object) -> ResultDocument:
    return document.model_copy(update=fields)


@pytest.mark.parametrize("figure", [one.figure for one in FIGURES], ids=lambda one: one.__module__.split(".")[-1])
def test_each_figure_has_a_drawing_with_words_and_says_n_method_and_units(figure: Draw, rich: ResultDocument) -> None:
    found = figure(rich)
    assert found.drawings
    assert all(part for part in (found.said, found.counted, found.method, found.units, found.tables))
    for drawing in found.drawings:
        assert 'role="img"' in drawing
        assert re.search(r"<title id=[^>]*>[^<]+</title><desc id=[^>]*>[^<]+</desc>", drawing)


@pytest.mark.parametrize("figure", [one.figure for one in FIGURES], ids=lambda one: one.__module__.split(".")[-1])
def test_what_was_not_measured_is_said_in_a_sentence(figure: Draw, kept: ResultDocument) -> None:
    found = figure(kept)
    assert found.said.endswith(".")
    assert found.drawings or not found.tables


def test_the_numbers_of_figures_are_one_to_nine(rich: ResultDocument) -> None:
    assert [module.figure(rich).number for module in FIGURES] == list(range(1, 10))


def test_the_front_names_what_no_plan_beats_and_greys_the_rest(rich: ResultDocument) -> None:
    found = front.figure(rich)
    points = front.points_of(rich, front.scored_by(rich))
    best = {point.number for point in points if not point.is_dominated}
    assert 40 in best
    assert all(f"#{number} " in found.said for number in best)
    assert "fold-conv-batchnorm + nncf-static-int8(keep=2) + threads(count=2) + openvino" in found.said
    for point in points:
        beaten_by = [
            o for o in points if o.seconds.value <= point.seconds.value and o.loss <= point.loss and o != point
        ]
        by_original = point.seconds.value >= rich.comparison.baseline.median_seconds and point.loss >= 0
        assert point.is_dominated == bool(beaten_by or by_original)


def test_the_front_draws_the_budget_and_every_plan_with_its_interval(rich: ResultDocument) -> None:
    found = front.figure(rich)
    assert "budget 1 pp" in found.drawings[0]
    assert "#40 fold-conv-batchnorm + nncf-static-int8(keep=2) + threads(count=2) + openvino: " in " ".join(tips(found))
    assert "1.2 [1.18, 1.22] ms; loss 0.12, at most 0.52 percentage points" in " ".join(tips(found))


def test_without_labels_the_front_is_of_decisions_that_differ(rich: ResultDocument) -> None:
    node = rich.model_dump()
    for one in node["candidates"]:
        if one["quality"]:
            one["quality"] |= {"drop": None, "drop_upper": None}
    found = front.figure(ResultDocument.model_validate(node))
    assert "decisions that differ from the original's" in found.method
    assert "loss 0.2, at most 0.8 %" in " ".join(tips(found))


def test_the_waterfall_shows_what_got_slower_and_why_a_worth_is_missing(rich: ResultDocument) -> None:
    found = gains.figure(rich)
    assert "1.98x slower" in found.drawings[0]
    assert "not measured: no time was" in found.drawings[0]
    assert found.said == "UNDECIDED, the interval holds 1: fold-conv-batchnorm."
    assert [row[1].text for row in found.tables[0].rows][1] == "2.05 [1.99, 2.11]"


def test_a_technique_that_costs_time_is_named(rich: ResultDocument) -> None:
    node = rich.model_dump()
    node["attribution"]["left_out"][3]["worth"] = Interval(0.8, 0.7, 0.9)
    assert "The winner would be faster without openvino." in gains.figure(ResultDocument.model_validate(node)).said


def test_latency_has_a_point_a_block_and_a_strip_of_the_original_against_itself(rich: ResultDocument) -> None:
    found = latency.figure(rich)
    shown = tips(found)
    assert sum(tip.startswith("block ") for tip in shown) == 42 + 20
    assert sum(", p99: " in tip for tip in shown) == 2
    assert "-]" in next(tip for tip in shown if ", p99: " in tip)
    assert found.said == "The smallest effect that this session may claim is 0.8%."


def test_an_unsteady_arm_is_said(rich: ResultDocument) -> None:
    node = rich.model_dump()
    node["comparison"]["baseline"]["steady"] = False
    assert "UNSTEADY: the original" in latency.figure(ResultDocument.model_validate(node)).said


def test_a_mix_of_shapes_has_a_row_for_each(rich: ResultDocument) -> None:
    node = rich.model_dump()
    node["conditions"]["mix"] = [{"shape": "1x8", "weight": 0.7}, {"shape": "1x64", "weight": 0.3}]
    node["comparison"]["baseline"]["shape_seconds"] = (0.001, 0.004)
    node["comparison"]["candidate"]["shape_seconds"] = (0.0005, 0.003)
    rows = latency.figure(ResultDocument.model_validate(node)).tables[1].rows
    assert [[cell.text for cell in row] for row in rows] == [["1x8", "70%", "1", "0.5"], ["1x64", "30%", "4", "3"]]


def test_the_profile_adds_up_by_operator_and_by_layer_with_the_overhead(rich: ResultDocument) -> None:
    by_operator, by_layer = profiles.figure(rich).tables
    assert rich.profiles is not None and rich.profiles.original is not None
    for found in (by_operator, by_layer):
        before = [row[2].value or 0.0 for row in found.rows if row[0].text == "before (torch)"]
        assert sum(before) == pytest.approx(rich.profiles.original.call_seconds)
    assert "layer0.0.conv+layer0.0.bn+layer0.0.relu" in [row[1].text for row in by_layer.rows]
    assert "framework overhead 586 µs" in profiles.figure(rich).said


def test_a_program_that_was_not_profiled_is_named(rich: ResultDocument) -> None:
    assert rich.profiles is not None
    one = changed(rich, profiles=Profiles(rich.profiles.original, None, "inductor names no operators"))
    assert profiles.figure(one).said.endswith("the winner was not profiled; inductor names no operators.")
    none = changed(rich, profiles=Profiles(note="no time was left"))
    assert profiles.figure(none).said == "There is no profile: no time was left."


def test_layers_that_were_kept_are_told_by_shape_and_by_name(rich: ResultDocument) -> None:
    found = sensitivity.figure(rich)
    assert found.said == "Kept in a higher precision: layer0.0.conv, layer4.1.conv."
    assert len(re.findall(r'<polygon[^>]*class="winner"', found.drawings[0])) == 2 + 1  # and its sign in the legend
    assert "head: ∞ dB, 0.20% of the time" in tips(found)


def test_the_roofline_says_in_words_what_bounds_each_program_and_each_layer(rich: ResultDocument) -> None:
    found = roofline.figure(rich)
    assert "The original is overhead-bound" in found.said
    assert "The delivered program is compute-bound" in found.said
    assert len([tip for tip in tips(found) if "GFLOP/s at" in tip]) == 48
    assert {tip.rpartition("; ")[2] for tip in tips(found) if "GFLOP/s at" in tip} <= set(roofline.WORDS.values())


def test_without_a_profile_whole_calls_still_stand_below_their_ceilings(rich: ResultDocument) -> None:
    found = roofline.figure(changed(rich, profiles=None))
    assert len(found.drawings) == 1
    assert "900 (int8, 2 threads)" in found.drawings[0]
    assert "No dot per layer" in found.said


def test_changed_decisions_are_counted_by_class(rich: ResultDocument) -> None:
    found = decisions.figure(rich)
    assert found.said == "26 of 591 decisions changed (4.40%): 10 for the better, 15 for the worse."
    assert "3 → 8: 14 samples, 6 better, 8 worse" in tips(found)
    assert [row[2].text for row in found.tables[1].rows][:4] == ["1", "2", "0", "14"]


def test_no_changed_decision_is_a_sentence(rich: ResultDocument) -> None:
    quality = rich.quality.__class__(**{**vars(rich.quality), "decisions": Decisions(((0, 598),), ())})
    found = decisions.figure(changed(rich, quality=quality))
    assert (found.said, found.drawings) == ("No decision changed on 598 samples.", ())


def test_costs_say_what_became_worse_and_when_the_change_pays(rich: ResultDocument) -> None:
    node = rich.model_dump()
    node["comparison"]["candidate"]["load_seconds"] = 5.0
    found = costs.figure(ResultDocument.model_validate(node))
    assert "Break-even: 2,345 calls pay" in found.said
    assert "Costs more than the original's: load." in found.said
    assert "No sweep over batches" in found.said
    assert "size of the program, delivered: 1.23 MB" in tips(found)


def test_plans_that_differ_by_their_threads_alone_are_a_sweep(rich: ResultDocument) -> None:
    for _, points in costs.sweeps_of(rich):
        counts = [count for count, _ in points]
        assert counts == sorted(set(counts))
        assert len(counts) > 1
    assert "threads" in [re.search(r'id="([a-z-]+)-title"', drawing)[1] for drawing in costs.figure(rich).drawings]  # type: ignore[index]
    assert "No sweep over threads" in costs.figure(changed(rich, candidates=rich.candidates[-1:])).said


def test_the_timeline_holds_every_candidate_with_outcome_and_reason(rich: ResultDocument) -> None:
    found = timeline.figure(rich)
    rows = [[cell.text for cell in row] for row in found.tables[0].rows]
    assert len(rows) == 40
    assert rows[4][2] == "crashed"
    assert rows[4][-1].startswith("SIGSEGV while converting")
    assert {"SLOWER", "quality unknown", "timeout"} <= {row[2] for row in rows}
    assert len([tip for tip in tips(found) if tip.startswith("#")]) == 40
    assert "x PREDICTED" in found.tables[0].columns


def test_what_got_slower_is_named_before_the_table(rich: ResultDocument) -> None:
    slower = [f"#{n}" for n, t in enumerate(rich.candidates, 1) if t.speedup is not None and t.speedup.high < 1]
    assert slower
    assert f"Slower than the original: {', '.join(slower)}." in timeline.figure(rich).said


def test_every_way_to_do_it_again_is_a_command(rich: ResultDocument) -> None:
    found = dict(around.commands(rich))
    assert found["the delivered plan alone"] == "vivace optimize TARGET --plan '39'"
    assert found["this page"] == "vivace report fast"


def test_limits_name_what_was_not_certified(rich: ResultDocument, kept: ResultDocument) -> None:
    node = rich.model_dump()
    node["noise_floor"] = 0.4
    node["comparison"]["baseline"]["p99_seconds"] = None
    told = " ".join(around.limits(ResultDocument.model_validate(node)))
    assert "The machine was disturbed: the original differs from itself by up to 40%." in told
    assert "The p99 of the original program is not estimable (n = 2400); it needs 473 calls." in told
    assert "UNDECIDED" in " ".join(around.limits(kept))


def test_the_page_begins_with_what_was_won(rich: ResultDocument) -> None:
    page = render(rich)
    first = re.search(r"<h1>(.*?)</h1>", page, re.DOTALL)
    assert first is not None
    assert "2.31x faster [2.27, 2.35] than the original, MEASURED; quality HELD" in first[1]


def test_the_page_of_a_kept_original_says_so_first_and_why() -> None:
    page = render(planted_results.kept(7))
    first = re.search(r"<h1>(.*?)</h1>", page, re.DOTALL)
    assert first is not None
    assert "kept the original: nothing faster was found" in first[1]
    assert "Why: of 7 plans: 1 ok, 1 unsupported, 1 crashed" in first[1]


def test_a_tiny_call_says_how_far_it_is_from_its_arithmetic(rich: ResultDocument) -> None:
    assert rich.compute is not None
    overhead = Overhead(14.2e-6, 0.31e-6, "onnx", 9e-6, Interval(0.63, 0.6, 0.66))
    found = roofline.figure(changed(rich, compute=dataclasses.replace(rich.compute, overhead=overhead)))
    assert "MEASURED 14.2 us a call, PREDICTED arithmetic floor 0.31 us (45.8x)" in found.said


def test_groups_that_run_as_one_operator_are_listed(rich: ResultDocument) -> None:
    details = dict(around.details(rich))
    assert [cell.text for cell in details["1 group of layers run as one operator"].rows[0]] == [
        "Convolution",
        "layer0.0.conv + layer0.0.bn + layer0.0.relu",
    ]
    assert "1 group of layers" in render(rich)
