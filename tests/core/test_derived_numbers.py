"""Numbers that follow from measured ones: what is dominated, times from ratios, time by operator and by layer."""

from __future__ import annotations

import doctest
import math

import pytest

from vivace.core import compute, measurement
from vivace.core.compute import OperatorTime, Profile, seconds_by_layer, seconds_by_operator
from vivace.core.measurement import Interval, dominated, seconds_at


@pytest.mark.parametrize("module", [compute, measurement], ids=lambda module: module.__name__)
def test_the_examples_in_docstrings_are_true(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


def test_a_point_is_dominated_by_one_that_is_better_in_one_and_no_worse_in_the_other() -> None:
    assert dominated([(1.0, 1.0), (2.0, 1.0), (0.5, 3.0), (0.5, 2.0), (3.0, 0.0)]) == (False, True, True, False, False)


def test_equal_points_and_a_single_one_are_on_the_front() -> None:
    assert dominated([(1.0, 1.0), (1.0, 1.0)]) == (False, False)
    assert dominated([(1.0, 1.0)]) == (False,)
    assert dominated([]) == ()


def test_a_time_has_the_ends_of_its_ratio_crosswise() -> None:
    assert seconds_at(0.01, Interval(2.0, 1.0, 4.0)) == Interval(0.005, 0.0025, 0.01)


def test_ratios_at_the_extremes_give_an_interval_all_the_same() -> None:
    assert seconds_at(0.01, Interval(2.0, 0.0, math.inf)) == Interval(0.005, 0.0, math.inf)
    assert seconds_at(math.inf, Interval(2.0, 1.0, math.inf)) == Interval(math.inf, 0.0, math.inf)


PROFILE = Profile(
    "torch",
    1.0,
    (
        OperatorTime("conv", ("a",), 0.2),
        OperatorTime("relu", ("a",), 0.1),
        OperatorTime("conv", ("b", "c"), 0.4),
        OperatorTime("copy", (), 0.05),
    ),
)


def test_time_by_operator_and_by_layer_adds_up_to_that_of_all_operators() -> None:
    for split in (seconds_by_operator, seconds_by_layer):
        assert sum(share.seconds for share in split(PROFILE)) + PROFILE.overhead_seconds == pytest.approx(1.0)
        assert sum(share.count for share in split(PROFILE)) == 4


def test_the_longest_comes_first_and_a_fused_group_is_one_entry() -> None:
    assert [share.name for share in seconds_by_operator(PROFILE)] == ["conv", "relu", "copy"]
    assert [share.name for share in seconds_by_layer(PROFILE)] == ["b+c", "a", ""]
