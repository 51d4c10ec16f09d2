"""Fits a model of time to few measurements: least squares of logarithms, with priors, and with outliers held short."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from vivace.core.measurement import Interval
from vivace.devices.scaling import t95

Vector = npt.NDArray[np.float64]
Residuals = Callable[[Vector], Vector]
"""From logarithms of parameters to log(predicted / measured)."""

HUBER = 1.5
"""Residuals beyond this many scales count linearly: one measurement in ten may be off without moving the rest."""
STEP = 1e-4
ROUNDS, TRIES = 40, 8


def fitted(residuals: Residuals, prior: Vector, spread: Vector, scale: float) -> Vector:
    """The logarithms of parameters that fit best, by Levenberg and Marquardt.

    Minimizes the sum of huber(residual / scale) and of ((theta - prior) / spread)^2. The priors say what is physically
    likely before anything is measured, so that parameters which a few measurements cannot tell apart stay where they
    make sense; `spread` is in logarithms: 0.7 is a factor of two.

    >>> found = fitted(lambda theta: theta - math.log(3.0), np.zeros(1), np.array([5.0]), 0.01)
    >>> round(float(np.exp(found[0])), 3)
    3.0
    """

    def parts(theta: Vector) -> Vector:
        return np.concatenate([_held_short(residuals(theta) / scale), (prior - theta) / spread])

    theta, damping = prior.copy(), 1.0
    rest = parts(theta)
    cost = float(rest @ rest)
    for _ in range(ROUNDS):
        slopes = np.stack([(parts(theta + STEP * unit) - rest) / STEP for unit in np.eye(len(theta))], axis=1)
        curve, gradient = slopes.T @ slopes, slopes.T @ rest
        before = cost
        for _ in range(TRIES):
            step = np.linalg.solve(curve + damping * np.diag(np.diag(curve)), -gradient)
            tried = parts(theta + step)
            if (found := float(tried @ tried)) < cost:
                theta, rest, cost, damping = theta + step, tried, found, max(damping / 4, 1e-6)
                break
            damping *= 4
        if before - cost < STEP * before:
            break
    return theta


def _held_short(residual: Vector) -> Vector:
    size = np.abs(residual)
    beyond = np.sqrt(np.maximum(2 * HUBER * size - HUBER**2, 0.0))
    return np.asarray(np.sign(residual) * np.where(size < HUBER, size, beyond))


def factor95(errors: npt.ArrayLike) -> float:
    """The factor that holds 95% of new errors, from |log(predicted / measured)| of measurements that no fit had seen.

    The ceil(0.95 (n + 1))-th smallest, or the largest where there are fewer than 19: split conformal prediction, which
    assumes nothing of the errors but that the new one is of the same kind. Source: Vovk, Gammerman and Shafer,
    Algorithmic Learning in a Random World, 2005.

    >>> round(factor95([0.1] * 18 + [0.2]), 3)
    1.221
    """
    sizes = np.sort(np.abs(np.asarray(errors, dtype=np.float64)))
    place = min(len(sizes), math.ceil(0.95 * (len(sizes) + 1)))
    return float(np.exp(sizes[place - 1]))


def around(value: float, factor: float) -> Interval:
    """The interval of a value that is known to a factor.

    >>> around(2.0, 2.0)
    Interval(value=2.0, low=1.0, high=4.0)
    """
    return Interval(value, value / factor, value * factor)


def once_more(values: Sequence[float]) -> Interval:
    """What one more of such positive values would be, with 95%: Student's prediction interval of their logarithms.

    >>> once_more([2.0, 2.0, 2.0]).high
    2.0
    """
    logs = [math.log(one) for one in values]
    reach = t95(len(logs) - 1) * statistics.stdev(logs) * math.sqrt(1 + 1 / len(logs))
    return around(math.exp(statistics.fmean(logs)), math.exp(reach))
