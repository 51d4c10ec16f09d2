"""Scales put values where they belong, whatever the values are, and their ticks are round and few."""

from __future__ import annotations

import doctest
import math

import pytest
from hypothesis import given
from hypothesis import strategies as some

from vivace.report.html import scale, svg, words
from vivace.report.html.scale import Scale, fitting, linear, logarithmic

NUMBERS = some.floats(allow_nan=True, allow_infinity=True, width=32)


@pytest.mark.parametrize("module", [scale, svg, words], ids=lambda module: module.__name__)
def test_the_examples_in_docstrings_are_true(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 10.0, [0, 2, 4, 6, 8, 10]),
        (0.13, 0.92, [0.2, 0.4, 0.6, 0.8]),
        (-1.0, 1.0, [-1, -0.5, 0, 0.5, 1]),
        (0.0, 950.0, [0, 200, 400, 600, 800]),
    ],
)
def test_linear_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert Scale(low, high, 0, 1).ticks() == ticks


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.9, 11.0, [1, 2, 3, 5, 10]),
        (0.5, 2.6, [0.5, 0.7, 1, 1.5, 2]),
        (1e-6, 1e6, [1e-6, 1e-4, 1e-2, 1, 1e2, 1e4, 1e6]),
        (0.98, 1.02, [0.98, 0.99, 1, 1.01, 1.02]),
    ],
)
def test_logarithmic_ticks_are_round_and_few(low: float, high: float, ticks: list[float]) -> None:
    assert Scale(low, high, 0, 1, is_log=True).ticks() == pytest.approx(ticks)


def test_an_attribute_cannot_be_left_early() -> None:
    assert svg.tag("text", class_='"><script>') == '<text class="&#34;&gt;&lt;script&gt;"></text>'


def test_ratios_that_are_each_other_s_inverse_lie_equally_far_from_one() -> None:
    found = Scale(0.25, 4, 0, 100, is_log=True)
    assert found.at(1) - found.at(0.5) == pytest.approx(found.at(2) - found.at(1))


@given(some.lists(NUMBERS, max_size=6), NUMBERS)
def test_any_value_lies_on_the_drawing(values: list[float], value: float) -> None:
    for made in (linear(values, 50, 470), logarithmic(values, 50, 470), fitting(values, 50, 470, include=(0,))):
        assert 50 - 1e-6 <= made.at(value) <= 470 + 1e-6
        assert all(made.holds(tick) or tick == pytest.approx(made.low) or tick == pytest.approx(made.high)
                   for tick in made.ticks())  # fmt: skip
        assert len(made.ticks()) <= 20


def test_values_over_more_than_a_few_times_are_shown_on_a_logarithmic_axis() -> None:
    assert fitting([1.0, 100.0], 0, 1).is_log
    assert not fitting([1.0, 1.5], 0, 1).is_log
    assert not fitting([-1.0, 100.0], 0, 1).is_log


def test_an_infinite_value_does_not_stretch_a_scale() -> None:
    assert linear([1.0, 2.0, math.inf], 0, 1).high < 3
