"""The step of a training on several processes of one machine, from what one process takes and from small exchanges."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np

from vivace.core.errors import UsageError
from vivace.core.measurement import Interval
from vivace.devices.collectives import Wire, all_gather, all_reduce
from vivace.devices.prediction.fitting import Vector, around, factor95, fitted


class Spread(Enum):
    """How processes divide a training: copies of the model, parts of every parameter, parts of pairs of linear layers,
    stages."""

    DATA = "data"
    SHARD = "shard"
    TENSOR = "tensor"
    PIPELINE = "pipeline"


# The law's parameters: what is likely before any measurement, and how far from it they may be (a logarithm). Those of
# the second group are of each way to spread.
CONTENTION = (1.1, 0.2)  # what a process takes while others compute beside it over what it takes alone
OF_SPREADS: dict[str, tuple[float, float]] = {
    "step_seconds": (1e-3, 1.0),  # once a step: wrapping, hooks, the sum of losses
    "exchange_seconds": (5e-4, 1.0),  # of each exchange: its messages' latency, and the framework around it
    "tensor_seconds": (3e-5, 1.0),  # more, of each tensor that is learned
    "traffic": (1.5, 0.5),  # seconds of bytes that are exchanged over those of bare messages
}
PRIOR: Vector = np.log([CONTENTION[0], *(value for _ in Spread for value, _ in OF_SPREADS.values())])
SPREAD: Vector = np.array([CONTENTION[1], *(spread for _ in Spread for _, spread in OF_SPREADS.values())])
SCALE = 0.05
"""The error of one measurement, in logarithms, that counts as ordinary."""


@dataclasses.dataclass(frozen=True)
class Wires:
    """What exchanges between the processes were measured to take: summing, gathering, and handing on."""

    summing: Wire
    gathering: Wire
    handing: Wire


@dataclasses.dataclass(frozen=True)
class Share:
    """What one process of several does in a step.

    `alone_seconds` is what its computing takes in a process that has no others beside it: its rows of a batch, its
    parts of layers, or, in a pipeline, what `pipeline_seconds` gives; `crowded_seconds` are those of them in which the
    others compute too: all, but in a pipeline. `exchanges` is how often it exchanges something, `exchanged_bytes` all
    that is summed, gathered or handed on, `tensors` how many tensors the model learns.
    """

    spread: Spread
    processes: int
    alone_seconds: float
    crowded_seconds: float
    exchanges: int
    exchanged_bytes: float
    tensors: int


@dataclasses.dataclass(frozen=True)
class Law:
    """A fitted law: logarithms of its parameters, and the factor that held 95% of measurements which a fit had not
    seen. `most_processes` is the boundary of what was measured."""

    parameters: Vector
    factor95: float
    most_processes: int


def pipeline_seconds(stages: Sequence[float], micro_batches: int) -> tuple[float, float]:
    """Seconds of m micro-batches through a pipeline, and those of them in which all stages compute: every stage once,
    and then m - 1 times more the slowest one, beside which the quickest computes as often.

    `stages` are of one micro-batch, forward and backward. Source: Narayanan and others, arXiv:2104.04473, section 2.2.

    >>> pipeline_seconds([1.0, 2.0], 4)
    (9.0, 3.0)
    """
    if not stages or micro_batches < 1:
        raise UsageError(f"stages is {list(stages)} and micro_batches {micro_batches}; allowed is one or more of each")
    again = micro_batches - 1
    return sum(stages) + again * max(stages), again * min(stages)


def traffic_seconds(share: Share, wires: Wires) -> float:
    """Seconds of a share's bytes on bare wires, without latencies. Copies sum gradients; a sharded step gathers
    parameters twice and scatters gradients once; tensor-parallel layers sum activations; stages hand them on."""
    n, size = share.processes, share.exchanged_bytes
    summing, gathering = (Wire(0.0, wire.bytes_per_second) for wire in (wires.summing, wires.gathering))
    return {
        Spread.DATA: lambda: all_reduce(size, n, summing),
        Spread.SHARD: lambda: 3 * all_gather(size, n, gathering),
        Spread.TENSOR: lambda: all_reduce(size, n, summing),
        Spread.PIPELINE: lambda: size / wires.handing.bytes_per_second,
    }[share.spread]()


def seconds_of(shares: Sequence[Share], wires: Wires, parameters: Vector) -> Vector:
    """Seconds of steps, by logarithms of parameters: w + (c - 1) v + a + b n + d k + e t, with w the computing alone,
    v the part of it that others compute beside, n exchanges, k tensors, t the bare traffic. c is of all, the others of
    the way to spread. Nothing is hidden behind computing: gloo's threads need the cores that compute.
    """
    p = np.exp(parameters)
    ways, rows = list(Spread), []
    for share in shares:
        first = 1 + ways.index(share.spread) * len(OF_SPREADS)
        step, exchange, tensor, traffic = p[first : first + len(OF_SPREADS)]
        rows.append(
            share.alone_seconds + (p[0] - 1) * share.crowded_seconds + step + exchange * share.exchanges
            + tensor * share.tensors + traffic * traffic_seconds(share, wires)
        )  # fmt: skip
    return np.array(rows)


def fit_processes(shares: Sequence[Share], seconds: Sequence[float], wires: Wires) -> Law:
    """The law that measured steps imply; its interval is what held those that were left out of a fit one by one."""
    measured = np.log(np.asarray(seconds, dtype=np.float64))
    errors = []
    for place, share in enumerate(shares):
        rest = [other for number, other in enumerate(shares) if number != place]
        found = _fitted(rest, np.delete(measured, place), wires)
        errors.append(float(np.log(seconds_of([share], wires, found)[0]) - measured[place]))
    most = max(share.processes for share in shares)
    return Law(_fitted(shares, measured, wires), factor95(errors), most)


def predicted_step(law: Law, share: Share, wires: Wires) -> Interval:
    """Seconds of a step, PREDICTED. Raises UsageError for more processes than were measured.

    >>> wire = Wire(1e-4, 1e9)
    >>> law = Law(PRIOR, 1.2, 2)
    >>> round(predicted_step(law, Share(Spread.DATA, 2, 0.01, 0.01, 2, 4e6, 8), Wires(wire, wire, wire)).value, 4)
    0.0192
    """
    if not 2 <= share.processes <= law.most_processes:
        raise UsageError(
            f"no measurement of {share.processes} processes; measured are 2 to {law.most_processes} on this machine"
        )
    return around(float(seconds_of([share], wires, law.parameters)[0]), law.factor95)


def latency_of(wires: Wires) -> float:
    """Seconds of a message without bytes: the geometric mean over the ways to exchange."""
    every = (wires.summing, wires.gathering, wires.handing)
    return float(np.exp(np.mean([math.log(wire.latency_seconds) for wire in every])))


def moved(parameters: Vector, latency_seconds: float, wires: Wires) -> Vector:
    """The parameters of a law that was fitted where a bare message took so long, for a machine with these wires: what
    the framework adds grows with the latency of a message, as both are instructions of one thread; contention and
    traffic, which are ratios, stay. Between two processors it held to 20%, and without it to 2.5 times."""
    adds = [0.0, *(float(name != "traffic") for _ in Spread for name in OF_SPREADS)]
    return np.asarray(parameters + np.array(adds) * math.log(latency_of(wires) / latency_seconds))


def wires_of(seen: Sequence[Mapping[str, Mapping[Any, float]]]) -> Wires:
    """What bare exchanges of two processes imply: `seen` maps "summing", "gathering" and "handing" to seconds by bytes,
    once or more, of which the median counts. A sum of two is two messages, each of half of the bytes; a gathering one
    of half; handing on one of all."""

    def medians(kind: str) -> dict[float, float]:
        return {float(size): float(np.median([one[kind][size] for one in seen])) for size in seen[0][kind]}

    return Wires(
        fitted_wire(medians("summing"), 2, 1.0), fitted_wire(medians("gathering"), 1, 0.5),
        fitted_wire(medians("handing"), 1, 1.0),
    )  # fmt: skip


def fitted_wire(seconds: Mapping[float, float], messages: int, times: float) -> Wire:
    """The wire that exchanges imply: `seconds` maps their bytes to what they took, where each is `messages` messages
    one after the other, and its bytes cross the wire `times` times. Errors are relative: small ones count as large.

    Raises UsageError for fewer than two sizes.

    >>> fitted_wire({0.0: 2e-4, 1e6: 1.2e-3}, 2, 1.0)
    Wire(latency_seconds=0.0001, bytes_per_second=1000000000.0)
    """
    if len(seconds) < 2:
        raise UsageError(f"seconds has {len(seconds)} sizes; allowed are two or more")
    rows = np.array([[messages / took, times * size / took] for size, took in seconds.items()])
    (latency, each_byte), *_ = np.linalg.lstsq(rows, np.ones(len(rows)), rcond=None)
    return Wire(float(max(0.0, round(latency, 12))), float(round(1.0 / max(each_byte, 1e-15), 3)))


def _fitted(shares: Sequence[Share], measured: Vector, wires: Wires) -> Vector:
    return fitted(lambda theta: np.log(seconds_of(shares, wires, theta)) - measured, PRIOR, SPREAD, SCALE)
