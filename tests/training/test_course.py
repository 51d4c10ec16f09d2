"""The course of a training: no step is left out, spans stay few, and their times are those of their steps."""

from __future__ import annotations

import statistics

import pytest

from vivace.core.training.course import Course
from vivace.training.course import CourseKeeper


def kept(count: int, most: int, at_once: int = 7) -> Course:
    """The course of `count` steps whose losses are their numbers, made so many at once, a second each."""
    keeper = CourseKeeper(most=most)
    for begun in range(0, count, at_once):
        losses = [float(number + 1) for number in range(begun, min(begun + at_once, count))]
        keeper.steps(losses, 1.0, float(losses[-1]))
    return keeper.course()


@pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 25, 99, 1000])
def test_spans_are_few_equally_long_and_hold_every_step(count: int) -> None:
    spans = kept(count, most=10).spans
    assert len(spans) <= 10
    assert sum(span.steps for span in spans) == count
    assert [span.step for span in spans][-1] == count
    lengths = {span.steps for span in spans[:-1]}
    assert len(lengths) <= 1
    assert all(length & (length - 1) == 0 for length in lengths)


def test_a_span_has_the_mean_the_lowest_and_the_highest_loss_of_its_own_steps() -> None:
    for span in kept(77, most=10).spans:
        losses = range(span.step - span.steps + 1, span.step + 1)
        assert (span.loss, span.lowest, span.highest) == (statistics.fmean(losses), losses[0], losses[-1])
        assert span.elapsed_seconds == span.step
        assert span.step_seconds == pytest.approx(1.0)


def test_few_steps_are_kept_one_by_one() -> None:
    assert [span.steps for span in kept(9, most=10).spans] == [1] * 9


def test_steps_that_were_not_timed_leave_the_time_of_their_span_to_the_others() -> None:
    keeper = CourseKeeper(most=2)
    keeper.steps([1.0], 2.0, 2.0)
    keeper.steps([1.0], None, 9.0)
    assert [span.step_seconds for span in keeper.course().spans] == [2.0]


def test_a_run_that_goes_on_counts_from_where_it_was() -> None:
    keeper = CourseKeeper(first_step=100)
    keeper.steps([0.5], 1.0, 1.0)
    keeper.epoch(1.5, 0.5)
    found = keeper.course()
    assert (found.spans[0].step, found.epochs[0].step, found.epochs[0].score_seconds) == (101, 101, 0.5)
