"""How many samples a target score takes, by the batch: the noise of gradients, and the time to the target."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from vivace.core.errors import UsageError
from vivace.core.measurement import Interval
from vivace.devices.scaling import t95


@dataclasses.dataclass(frozen=True)
class Convergence:
    """Samples to a target against the batch: E(B) = Emin (1 + B / Bcrit), fitted to runs that reached it.

    In steps it is (S / Smin - 1) (E / Emin - 1) = 1. Bcrit is the noise scale of gradients where the law holds.
    Source: McCandlish, Kaplan, Amodei and others, An Empirical Model of Large-Batch Training, arXiv 1812.06162.
    `batches` are those that were run; beyond them `samples` refuses.
    """

    least_samples: float
    critical_batch: float
    batches: tuple[float, ...]
    relative_spread: float
    inverse: tuple[tuple[float, float], tuple[float, float]]

    def samples(self, batch: float) -> Interval:
        """Samples to the target with this batch, with the 95% interval of one more run.

        Raises UsageError beyond the batches that were run: the law was off by up to a third there on MLPerf's tasks.
        """
        low, high = min(self.batches), max(self.batches)
        if not low <= batch <= high:
            raise UsageError(
                f"a batch of {batch:g} is beyond those that reached the target ({low:g} to {high:g}); run one there"
            )
        value = self.least_samples * (1 + batch / self.critical_batch)
        x = (1 / value, batch / value)
        leverage = sum(x[i] * self.inverse[i][j] * x[j] for i in (0, 1) for j in (0, 1))
        reach = t95(len(self.batches) - 2) * self.relative_spread * math.sqrt(1 + leverage)
        return Interval(value, value * max(0.0, 1 - reach), value * (1 + reach))

    def seconds(self, batch: float, samples_per_second: Interval) -> Interval:
        """Seconds to the target with this batch at this rate; the ends combine the ends of both."""
        needed = self.samples(batch)
        rate = samples_per_second
        return Interval(needed.value / rate.value, needed.low / rate.high, needed.high / rate.low)


def fit_convergence(runs: Sequence[tuple[float, float]]) -> Convergence:
    """The law that runs imply; each is (batch, samples to the target). Least squares of relative errors.

    Raises UsageError for fewer than three batches, which leave no interval, and where more samples are not needed with
    larger batches, so that there is no critical one.

    >>> law = fit_convergence([(b, 1000 * (1 + b / 64)) for b in (16, 32, 64, 128)])
    >>> round(law.least_samples), round(law.critical_batch)
    (1000, 64)
    """
    batches = tuple(batch for batch, _ in runs)
    if len(set(batches)) < 3:
        raise UsageError(f"runs have {len(set(batches))} different batches; allowed are three or more")
    if any(not batch > 0 or not samples > 0 for batch, samples in runs):
        raise UsageError(f"runs are {list(runs)}; allowed are batches and samples above 0")
    rows = [(1 / samples, batch / samples) for batch, samples in runs]
    a, b, c = (sum(x[i] * x[j] for x in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
    determinant = a * c - b * b
    inverse = ((c / determinant, -b / determinant), (-b / determinant, a / determinant))
    sums = [sum(x[i] for x in rows) for i in (0, 1)]
    start, slope = (inverse[i][0] * sums[0] + inverse[i][1] * sums[1] for i in (0, 1))
    if not start > 0 or not slope > 0:
        raise UsageError(
            f"the runs {list(runs)} need no more samples with larger batches, so they have no critical batch; add "
            "larger ones"
        )
    residuals = sum((1 - start * x[0] - slope * x[1]) ** 2 for x in rows)
    spread = math.sqrt(residuals / (len(rows) - 2)) if len(rows) > 2 else 0.0
    return Convergence(start, start / slope, batches, spread, inverse)


def noise_scale(small: float, big: float, small_square: float, big_square: float) -> float:
    """The noise scale tr(S) / |G|^2 of gradients from the mean squared norms at two batches.

    |G|^2 = (B |g_B|^2 - b |g_b|^2) / (B - b) and tr(S) = (|g_b|^2 - |g_B|^2) / (1/b - 1/B). Source: McCandlish and
    others, arXiv 1812.06162, appendix A.1. Raises UsageError where noise hides the gradient, so that |G|^2 is not
    above 0.

    >>> noise_scale(8, 64, 1 + 32 / 8, 1 + 32 / 64)
    32.0
    """
    signal = (big * big_square - small * small_square) / (big - small)
    noise = (small_square - big_square) / (1 / small - 1 / big)
    if not signal > 0:
        raise UsageError(
            f"the squared norms {small_square} at {small} and {big_square} at {big} are all noise; take more"
        )
    return noise / signal
