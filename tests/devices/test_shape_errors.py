"""What steps with operators of the same shapes share beside a law: it is learned, shrunk, and passed on to its like."""

from __future__ import annotations

import numpy as np
import pytest

from vivace.devices.prediction.shapes import OF_STEP, Shape, ShapeErrors, alike, shape_errors, whitening

MEASURED = Shape(4, 2048, 1024)
WIDER = Shape(4, 2048, 4096)
LONGER = Shape(4, 8192, 1024)
SPLIT_MORE = Shape(8, 2048, 1024)


def test_what_a_shape_takes_is_learned_from_its_steps_and_held_short_of_their_noise() -> None:
    few = np.log(shape_errors([MEASURED], np.array([0.2])).factor(MEASURED))
    many = np.log(shape_errors([MEASURED] * 50, np.full(50, 0.2)).factor(MEASURED))

    assert 0.1 < few < many < 0.2
    assert few == pytest.approx(0.2 * alike(MEASURED, MEASURED) / (alike(MEASURED, MEASURED) + OF_STEP**2))


def test_shapes_that_are_more_alike_share_more_of_an_error_and_others_nothing() -> None:
    found = shape_errors([MEASURED], np.array([0.2]))

    factors = [found.factor(shape) for shape in (MEASURED, WIDER, LONGER, SPLIT_MORE)]
    assert factors == sorted(factors, reverse=True)
    assert factors[2] > 1.0 == factors[3]


def test_steps_of_one_shape_that_differ_count_with_their_mean() -> None:
    apart = shape_errors([MEASURED, MEASURED], np.array([0.1, 0.3])).factor(MEASURED)
    equal = shape_errors([MEASURED, MEASURED], np.array([0.2, 0.2])).factor(MEASURED)

    assert apart == pytest.approx(equal)


def test_it_is_what_normal_equations_of_all_steps_give() -> None:
    shapes = [MEASURED, WIDER, MEASURED, LONGER, SPLIT_MORE, LONGER]
    errors = np.array([0.1, -0.05, 0.14, 0.2, -0.1, 0.16])
    shared = np.array([[alike(one, other) for other in shapes] for one in shapes])

    pulls = np.linalg.solve(shared + OF_STEP**2 * np.eye(6), errors)

    found = shape_errors(shapes, errors)
    assert np.log([found.factor(shape) for shape in shapes]) == pytest.approx(shared @ pulls)


def test_errors_that_are_whitened_are_independent_and_of_size_one() -> None:
    shapes = [MEASURED, WIDER, MEASURED, SPLIT_MORE]
    shared = np.array([[alike(one, other) for other in shapes] for one in shapes]) + OF_STEP**2 * np.eye(4)

    found = whitening(shapes)

    assert found @ shared @ found.T == pytest.approx(np.eye(4), abs=1e-9)


def test_nothing_measured_changes_nothing() -> None:
    assert ShapeErrors().factor(MEASURED) == 1.0
