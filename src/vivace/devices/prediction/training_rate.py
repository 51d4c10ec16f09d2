"""What share of a device's peak a transformer's sharded training reaches, as a regression on published measurements."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from vivace.core.prediction.work import Transformer
from vivace.devices.prediction.fitting import Vector

FEATURES = (
    "one", "width", "recompute", "sequence", "node_doublings", "width_squared", "sequence_squared", "tokens",
)  # fmt: skip
RIDGE = 0.3
"""How strongly coefficients are held at zero; the first is free. Features are logarithms of a few units at most."""
WIDTH, SEQUENCE, TOKENS, NODE = 2048, 2048, 16384, 8


@dataclasses.dataclass(frozen=True)
class Trained:
    """One measured or wanted training: the model, the count of devices, samples of a device's micro-batch, and whether
    layers are computed twice."""

    model: Transformer
    devices: int
    micro_batch: int
    recompute: bool = False


def features(one: Trained) -> list[float]:
    """What the share depends on: logarithms of width, sequence and tokens of a micro-batch, the doublings of 8 devices,
    and whether layers are computed twice."""
    width, sequence = math.log(one.model.width / WIDTH), math.log(one.model.sequence / SEQUENCE)
    tokens = math.log(one.micro_batch * one.model.sequence / TOKENS)
    doublings = math.log2(one.devices / NODE)
    return [1.0, width, float(one.recompute), sequence, doublings, width**2, sequence**2, tokens]


def step_flops(model: Transformer) -> float:
    """Operations of one sample's update, without what is computed twice: three times the forward's.

    >>> step_flops(Transformer(1, 8, 1, 4, 16)) == 3 * Transformer(1, 8, 1, 4, 16).flops
    True
    """
    return 3 * model.flops


def fit_rate(trained: Sequence[Trained], samples_per_second: Sequence[float], peak_flops: float) -> Vector:
    """Coefficients of log(share of the peak) by ridge regression; rates are of one device."""
    rows = np.array([features(one) for one in trained])
    shares = [step_flops(one.model) * rate / peak_flops for one, rate in zip(trained, samples_per_second, strict=True)]
    hold = np.eye(len(FEATURES)) * RIDGE
    hold[0, 0] = 0.0
    return np.asarray(np.linalg.solve(rows.T @ rows + hold, rows.T @ np.log(shares)))


def sample_rate(coefficients: Vector, one: Trained, peak_flops: float) -> float:
    """Samples a second of one device."""
    share = math.exp(float(np.dot(features(one), coefficients)))
    return share * peak_flops / step_flops(one.model)
