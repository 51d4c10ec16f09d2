"""How long n samples take together, t(n) = a + b n, and how many are worth putting together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

CAPACITY_SHARE = 0.95
"""Of the samples a second that endless batches would give: what a full batch should reach."""
MOST_SAMPLES = 64
MOST_SECONDS = 0.1
"""Nobody's request should wait longer than this for a batch that was begun just before it came."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """Seconds of a call: `fixed_seconds` for the call and `sample_seconds` for each sample in it."""

    fixed_seconds: float
    sample_seconds: float

    def seconds(self, samples: int) -> float:
        """What a call of so many samples takes.

        >>> Curve(0.5, 0.25).seconds(2)
        1.0
        """
        return self.fixed_seconds + self.sample_seconds * samples

    def samples_per_second(self, samples: int) -> float:
        """What calls of so many samples give."""
        return samples / max(self.seconds(samples), 1e-9)


def fit(points: Sequence[tuple[int, float]]) -> Curve:
    """The line through measured (samples, seconds), by least squares of the relative error; neither part is negative.

    Small calls count as much as large ones in this way: their differences in seconds are smaller, not less real.

    >>> curve = fit([(1, 0.003), (2, 0.004), (4, 0.006)])
    >>> round(curve.fixed_seconds, 6), round(curve.sample_seconds, 6)
    (0.002, 0.001)
    """
    if not points or any(samples < 1 or not seconds > 0 for samples, seconds in points):
        raise ValueError(f"received {points}; allowed are counts of samples from 1 on with positive seconds")
    weights = [1 / seconds**2 for _, seconds in points]
    total = sum(weights)
    mean_n = sum(w * n for w, (n, _) in zip(weights, points, strict=True)) / total
    mean_t = sum(w * t for w, (_, t) in zip(weights, points, strict=True)) / total
    spread = sum(w * (n - mean_n) ** 2 for w, (n, _) in zip(weights, points, strict=True))
    joint = sum(w * (n - mean_n) * (t - mean_t) for w, (n, t) in zip(weights, points, strict=True))
    slope = max(0.0, joint / spread) if spread else mean_t / mean_n
    fixed = mean_t - slope * mean_n
    return Curve(fixed, slope) if fixed >= 0 else Curve(0.0, mean_t / mean_n)


def best_batch(curve: Curve, most: int = MOST_SAMPLES, most_seconds: float = MOST_SECONDS) -> int:
    """The fewest samples in a batch that reach CAPACITY_SHARE of all that batches can give, within both bounds.

    A batch of n gives n / (a + b n) samples a second, which reaches a share s of 1/b from n = s/(1-s) a/b on.

    >>> best_batch(Curve(0.001, 0.001)), best_batch(Curve(0.0, 0.01)), best_batch(Curve(0.001, 0.0))
    (19, 1, 64)
    """
    a, b = curve.fixed_seconds, curve.sample_seconds
    enough = most if b <= 0 else math.ceil(CAPACITY_SHARE / (1 - CAPACITY_SHARE) * a / b - 1e-9)
    quick = most if b <= 0 else int((most_seconds - a) / b)
    return max(1, min(most, enough, quick))
