"""The first line says what was won and how sure that is, or that nothing won and why."""

from __future__ import annotations

import dataclasses

import pytest

from vivace.core.measurement import Interval, SpeedVerdict
from vivace.core.result import Result
from vivace.report.candidates import is_slower, seconds_of, speed_of, winner_of
from vivace.report.headline import headline, why_kept
from vivace.report.results import to_document
from vivace.report.wording import speed_sentence


def test_a_gain_has_its_interval_its_label_and_the_verdict_on_quality(result: Result) -> None:
    assert headline(to_document(result)) == (
        "2.31x faster [2.27, 2.35] than the original, MEASURED; quality HELD: drop 0.12 pp, upper bound 0.41 < budget "
        "1.0 pp (n=550)"
    )
    assert why_kept(to_document(result)) == ""


def test_an_original_that_was_kept_says_how_the_plans_ended(nothing: Result) -> None:
    document = to_document(nothing)
    assert headline(document) == "kept the original: nothing faster was found that holds the budget"
    assert why_kept(document).startswith("of 5 plans: 2 ok, 1 unsupported, 1 crashed, 1 not faster; the nearest when")


@pytest.mark.parametrize(
    ("conditions", "told"),
    [
        (
            {"calls": 1},
            "threads(count=1) + openvino(precision=bf16) is faster a call, but loading it is not made up for by 1 call",
        ),
        (
            {"calls": 20},
            "threads(count=1) + openvino(precision=bf16) is faster a call, but loading it is not made up for by 20",
        ),
        ({"objective": "memory"}, "nothing was found that takes clearly less memory, is not slower and holds"),
        ({"objective": "size"}, "nothing was found that is clearly smaller on the disk, not slower and holds"),
        ({"objective": "latency"}, "nothing faster was found that holds the budget"),
    ],
)
def test_what_lost_is_told_as_what_the_search_was_asked_for(
    nothing: Result, conditions: dict[str, object], told: str
) -> None:
    document = to_document(dataclasses.replace(nothing, conditions=conditions))

    assert headline(document).startswith(f"kept the original: {told}")


def test_many_calls_whose_plans_were_not_faster_say_so(nothing: Result) -> None:
    document = to_document(dataclasses.replace(nothing, conditions={"calls": 9}, candidates=nothing.candidates[:2]))

    assert headline(document) == "kept the original: nothing faster was found that holds the budget"


def test_the_nearest_finalist_is_told_with_its_verdict(nothing: Result) -> None:
    last = nothing.candidates[-1]
    assert last.confirmed is not None
    near = dataclasses.replace(last.confirmed, speedup=Interval(1.01, 0.98, 1.04), verdict=SpeedVerdict.UNDECIDED)
    document = to_document(dataclasses.replace(nothing, candidates=(last.replace(confirmed=near),)))
    assert "was UNDECIDED against the original: 1.01x [0.98, 1.04], MEASURED, quality HELD" in why_kept(document)


def test_a_search_that_tried_nothing_says_so(nothing: Result) -> None:
    document = to_document(dataclasses.replace(nothing, candidates=()))
    assert headline(document) == "kept the original: no plan was tried, for the time was used up before"
    assert why_kept(document) == "no plan was tried: the time was used up before"


def test_a_candidate_s_speed_is_the_confirmed_one_where_there_is_one(result: Result) -> None:
    document = to_document(result)
    rung, slow, *_, won = document.candidates
    assert winner_of(document) == won
    assert speed_of(won) == Interval(2.31, 2.27, 2.35)
    assert speed_of(rung) == Interval(1.3, 1.28, 1.32)
    assert (is_slower(slow), is_slower(rung)) == (True, False)


def test_a_candidate_s_time_is_on_the_confirmed_original_s_axis(result: Result) -> None:
    document = to_document(result)
    found = seconds_of(document, document.candidates[0])
    assert found is not None
    assert (round(found.value, 6), found.low < found.value < found.high) == (round(0.00277 / 1.3, 6), True)
    assert seconds_of(document, document.candidates[2]) is None


def test_a_gain_whose_runs_disagreed_begins_with_what_is_sure(result: Result) -> None:
    wide = dataclasses.replace(result.comparison, speedup=Interval(32.7, 2.13, 502.0))

    assert speed_sentence(wide) == (
        "at least 2.13x faster than the original, MEASURED (32.7x [2.13, 502], for runs disagreed)"
    )
