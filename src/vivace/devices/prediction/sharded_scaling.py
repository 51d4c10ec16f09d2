"""How the throughput of a sharded training changes with the count of devices, from one count that was measured."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from vivace.core.errors import UsageError
from vivace.devices.prediction.fitting import Vector, fitted

PARAMETERS: dict[str, tuple[float, float]] = {
    "inside": (0.010, 1.0),  # exposed seconds for 10^9 weights and micro-batch, within one node
    "across": (0.015, 1.0),  # the same over nodes
    "growth": (0.003, 1.0),  # more of it each time the count of nodes doubles
    "latency_seconds": (0.004, 1.0),  # for each doubling of the nodes, whatever the model
    "update": (0.010, 1.0),  # seconds once a step for 10^9 weights on one node, shared by more
    "step_seconds": (0.010, 1.0),  # once a step
}
PRIOR: Vector = np.log([value for value, _ in PARAMETERS.values()])
SPREAD: Vector = np.array([spread for _, spread in PARAMETERS.values()])
SCALE = 0.03
NODE = 8
"""Devices of a node in what was measured."""
LEAST_COMPUTE = 0.3
"""Of the measured micro-batch: the law never calls more than the rest communication."""


@dataclasses.dataclass(frozen=True)
class Shards:
    """One training of the kind: weights, devices, samples of a device's micro-batch, micro-batches of a step, whether
    only gradients and optimizer are sharded (weights are then gathered once and not twice)."""

    parameters: float
    devices: int
    micro_batch: int
    micro_batches: int = 1
    keeps_weights: bool = False

    def __post_init__(self) -> None:
        if min(self.parameters, self.devices, self.micro_batch, self.micro_batches) <= 0:
            raise UsageError(f"{self} has a size that is not above 0")


def samples_per_second(parameters: Vector, measured: Shards, rate: float, wanted: Shards) -> float:
    """Samples a second of one device at `wanted`, from those at `measured` (`rate`), by logarithms of PARAMETERS.

    A micro-batch takes c b + exposed(P, n) and its part of what is done once a step; c follows from the measurement.
    exposed(P, n) = P g (inside, or across + growth log2(n/8)) + latency log2(n/8), with g of 1, or 2/3 where weights
    are gathered once. The form holds the volume of ZeRO's third stage, 3 P (n - 1)/n (Rajbhandari and others, arXiv
    1910.02054), and a growth with the depth of the network.
    """
    p = dict(zip(PARAMETERS, np.exp(parameters), strict=True))
    whole = measured.micro_batch / rate
    compute = max(whole - _rest(p, measured), LEAST_COMPUTE * whole) / measured.micro_batch
    return wanted.micro_batch / (compute * wanted.micro_batch + _rest(p, wanted))


def exposed_seconds(parameters: Vector, shards: Shards) -> float:
    """Seconds of communication in a micro-batch that nothing hides."""
    return _exposed(dict(zip(PARAMETERS, np.exp(parameters), strict=True)), shards)


Pair = tuple[Shards, float, Shards, float]
"""A measured count with its rate, and another with its own."""


def fit_scaling(pairs: Sequence[Pair]) -> Vector:
    """The logarithms of parameters that pairs of counts imply, each the same training measured twice."""

    def residuals(theta: Vector) -> Vector:
        return np.array([math.log(samples_per_second(theta, a, rate, b) / true) for a, rate, b, true in pairs])

    return fitted(residuals, PRIOR, SPREAD, SCALE)


def _rest(p: dict[str, float], one: Shards) -> float:
    """What a micro-batch takes beside its own computing: communication, and its part of what is done once a step."""
    once = p["update"] * one.parameters / 1e9 * NODE / one.devices + p["step_seconds"]
    return _exposed(p, one) + once / one.micro_batches


def _exposed(p: dict[str, float], one: Shards) -> float:
    doublings = math.log2(one.devices / NODE) if one.devices > NODE else 0.0
    volume = one.parameters / 1e9 * (2 / 3 if one.keeps_weights else 1.0)
    each = p["across"] + p["growth"] * doublings if one.devices > NODE else p["inside"]
    return volume * each + p["latency_seconds"] * doublings
