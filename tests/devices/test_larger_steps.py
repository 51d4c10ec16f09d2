"""Lines of steps near and beyond what was measured: how far the law of operators goes, and what the peaks allow."""

from __future__ import annotations

import math

import pytest

from vivace.core.prediction.answer import Line
from vivace.core.prediction.work import Operator, OperatorKind, Purpose
from vivace.devices.catalog import device
from vivace.devices.prediction.lines import Asked, Seen, Step, line_of
from vivace.devices.prediction.measured import laws

H100 = device("h100-sxm")
LAW = laws().operators["gpu"]
F32 = Asked("f32")


def step_of(purpose: Purpose, operators: int, gigaflops: float = 100.0) -> Step:
    each = Operator("mm", OperatorKind.PRODUCT, gigaflops * 1e9 / operators, 1e6)
    return Step(purpose, 8, 10**9, 4e9, 4e9, 8e9, 1e6, lambda samples: [each] * operators)


def spread(line: Line) -> float:
    assert line.seconds is not None
    return line.seconds.high / line.seconds.value


@pytest.mark.parametrize(("purpose", "most"), [(Purpose.TRAINING, 397), (Purpose.INFERENCE, 134)])
def test_steps_of_more_operators_than_were_measured_are_predicted_with_a_wider_interval(
    purpose: Purpose, most: int
) -> None:
    seen, more, most_of_all = (line_of(step_of(purpose, n), H100, 1, F32, laws()) for n in (most, most + 15, 4 * most))

    assert spread(seen) == pytest.approx(LAW.factor95)
    assert spread(more) == pytest.approx(LAW.factor95 * ((most + 15) / most) ** LAW.beyond.exponent)
    assert spread(most_of_all) == pytest.approx(LAW.factor95 * 4**LAW.beyond.exponent)
    assert "larger than any step that was measured" not in seen.basis
    assert "larger than any step that was measured: interval widened by 1.22" in most_of_all.basis


def test_steps_of_more_than_four_times_what_was_measured_are_refused() -> None:
    many = line_of(step_of(Purpose.TRAINING, 4 * 397 + 1), H100, 1, F32, laws())
    heavy = line_of(step_of(Purpose.TRAINING, 100, gigaflops=160e3), H100, 1, F32, laws())

    assert many.refusal == (
        "no measurement of update operators 1589; measured are 0 to 397, and 4 times that is the most that is predicted"
    )
    assert heavy.seconds is None and "no measurement of gigaflops 160000" in heavy.refusal


def test_no_end_of_an_interval_is_faster_than_the_peaks_allow() -> None:
    heavy = line_of(step_of(Purpose.TRAINING, 100, gigaflops=30e3), H100, 1, F32, laws())

    assert heavy.seconds is not None and heavy.floor_seconds is not None and heavy.samples_per_second is not None
    assert heavy.seconds.value / LAW.factor95 < heavy.floor_seconds  # so that the interval alone would be below
    assert heavy.seconds.low == heavy.floor_seconds
    assert heavy.samples_per_second.high == pytest.approx(8 / heavy.floor_seconds)
    assert heavy.joules is not None and math.isclose(heavy.joules.low, 700 * heavy.floor_seconds)


def test_a_measurement_that_the_peaks_do_not_allow_is_refused() -> None:
    seen = Asked("f32", measured=Seen(8, 1e6, 8))
    line = line_of(step_of(Purpose.TRAINING, 100, gigaflops=30e3), H100, 8, seen, laws())

    assert line.seconds is None
    assert "from your 1e+06 samples/s on 8" in line.refusal
    assert line.refusal.endswith("would be less than the peaks in f32 allow")
