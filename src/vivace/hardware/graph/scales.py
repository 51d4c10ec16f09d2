"""Scales: which step of a grid of so many bits represents some numbers with the smallest squared error."""

from __future__ import annotations

import numpy as np

from vivace.hardware.graph.integer import Array, Format
from vivace.hardware.graph.layers import Real

MOST_SAMPLED = 40_000
"""Activations that a scale is fitted to."""
_SHARES = np.linspace(1.0, 0.3, 36)
"""Of the largest magnitude: what is beyond is clipped, in exchange for a finer grid."""
_SMALLEST = 1e-12


def scale_of(numbers: Real, form: Format) -> float:
    """The scale of a grid for these numbers, by the smallest mean squared error among some clippings.

    >>> scale_of(np.array([0.0, 127.0]), Format(8, signed=True))
    1.0
    """
    taken = _sample(numbers.reshape(-1))
    largest = float(np.abs(taken).max(initial=0.0))
    if largest < _SMALLEST:
        return 1.0 / form.high
    scales = largest * _SHARES / form.high
    errors = [float(np.square(taken - np.clip(np.rint(taken / s), form.low, form.high) * s).sum()) for s in scales]
    return float(scales[int(np.argmin(errors))])


def wide_scale_of(numbers: Real, form: Format, headroom: float) -> float:
    """The scale of a grid that nothing seen is clipped by, with room for numbers `headroom` times as large."""
    largest = float(np.abs(numbers).max(initial=0.0))
    return (largest if largest >= _SMALLEST else 1.0) * headroom / form.high


def weight_scales(weight: Real, bits: int) -> Real:
    """One scale for each output of a weight, by the smallest squared error of that output's weights.

    With one bit the weights are -1 and 1 times the mean magnitude (Rastegari et al., XNOR-Net, arXiv:1603.05279,
    equation 6). An output whose weights are all 0 gets the largest scale of the others, 1 where all are 0.
    """
    rows = weight.reshape(len(weight), -1)
    if bits == 1:
        means: Real = np.maximum(np.abs(rows).mean(1), _SMALLEST)
        return means
    form = Format(bits, signed=True)
    largest = np.abs(rows).max(1)
    best, least = np.zeros(len(rows)), np.full(len(rows), np.inf)
    for share in _SHARES:
        scale = np.maximum(largest * share / form.high, _SMALLEST)[:, None]
        error = np.square(rows - np.clip(np.rint(rows / scale), form.low, form.high) * scale).sum(1)
        best, least = np.where(error < least, scale[:, 0], best), np.minimum(error, least)
    dead = largest < _SMALLEST
    return np.where(dead, best[~dead].max(initial=0.0) if not dead.all() else 1.0, best)


def rounded_weights(weight: Real, scales: Real, bits: int) -> Array:
    """Weights as integers of their grid."""
    divided = weight / scales.reshape(-1, *[1] * (weight.ndim - 1))
    if bits == 1:
        return np.where(divided < 0, -1, 1).astype(np.int64)
    form = Format(bits, signed=True)
    return np.clip(np.rint(divided), form.low, form.high).astype(np.int64)


def _sample(numbers: Real) -> Real:
    """A part of the numbers, spread evenly, with the largest magnitudes among them."""
    if numbers.size <= MOST_SAMPLED:
        return numbers
    step = numbers.size // MOST_SAMPLED
    largest = numbers[int(np.abs(numbers).argmax())]
    return np.append(numbers[::step], largest)
