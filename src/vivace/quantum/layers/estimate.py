"""Outputs of a layer as the simulator computes them, slice by slice, beside what they are; and whether the two
agree."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np

from vivace.core.errors import UsageError
from vivace.core.measurement import Interval
from vivace.quantum import simulator
from vivace.quantum.intervals import CONFIDENCE, holds, scaled, total
from vivace.quantum.layers.overlap import ZERO, OverlapTest, circuit_of, overlap
from vivace.quantum.layers.preparation import Vector, padded
from vivace.quantum.limits import STANDARD, SimulationLimits
from vivace.quantum.machines import QuantumMachine
from vivace.quantum.picture import Picture, picture_of
from vivace.quantum.simulator import SHOTS, GateCounts

MOST_ELEMENTS = 64
FALSE_ALARM = 0.01
"""How often all slices together are said to differ although the circuits are right."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One output of a layer: its weights, the inputs that they meet, and its bias. `place` says where it stands."""

    place: tuple[int, int]
    weights: Vector
    inputs: Vector
    bias: float = 0.0

    @property
    def exact(self) -> float:
        """The output in double precision."""
        return float(np.dot(self.weights, self.inputs)) + self.bias


@dataclasses.dataclass(frozen=True)
class SliceEstimate:
    """One slice of one output. `exact` and `estimate` are in the layer's units; `scale`, the product of both norms, is
    what an inner product of 1 is worth; a slice of scale 0 needs no circuit. The interval is of 95%; `agrees` asks a
    wider one, so that all slices of a run together differ by chance once in a hundred runs. Of a swap test all values
    are absolute ones."""

    place: tuple[int, int]
    first: int
    elements: int
    scale: float
    exact: float
    estimate: Interval
    zeros: int
    shots: int
    agrees: bool


@dataclasses.dataclass(frozen=True)
class OutputEstimate:
    """One output put together from its slices, with its bias."""

    place: tuple[int, int]
    exact: float
    estimate: Interval
    slices: int


@dataclasses.dataclass(frozen=True)
class Simulation:
    """One test run on the simulator, SIMULATED: ideally where `machine` is empty, else with that machine's gates, pairs
    and noise. `circuit` counts what the largest circuit was translated to, `gates` what it was before; `picture` shows
    it.
    """

    test: OverlapTest
    machine: str
    shots: int
    seed: int
    slices: tuple[SliceEstimate, ...]
    outputs: tuple[OutputEstimate, ...]
    circuit: GateCounts
    gates: GateCounts
    picture: Picture

    @property
    def agrees(self) -> bool:
        """Whether every slice agrees with the classical value within its shot noise."""
        return all(one.agrees for one in self.slices)

    @property
    def held(self) -> int:
        """How many slices' 95% intervals hold the classical value; about 95% of them should."""
        return sum(holds(one.estimate, one.exact) for one in self.slices)


@dataclasses.dataclass(frozen=True)
class _Slice:
    row: Row
    first: int
    weights: Vector
    inputs: Vector

    @property
    def scale(self) -> float:
        return float(np.linalg.norm(self.weights) * np.linalg.norm(self.inputs))

    @property
    def elements(self) -> int:
        return len(self.weights)

    def exact(self, test: OverlapTest) -> float:
        product = float(np.dot(self.weights, self.inputs))
        return product if test is OverlapTest.HADAMARD else abs(product)


def simulated(
    rows: Sequence[Row],
    test: OverlapTest = OverlapTest.HADAMARD,
    *,
    elements: int = MOST_ELEMENTS,
    shots: int = SHOTS,
    seed: int = 0,
    machine: QuantumMachine | None = None,
    limits: SimulationLimits = STANDARD,
) -> Simulation:
    """Every row computed by circuits over slices of at most `elements` numbers, each run `shots` times.

    The same seed gives the same counts. Raises UsageError for a slice of more than 64 numbers or of none, and where the
    simulation is beyond the limits.
    """
    _check(rows, elements, shots)
    pieces = [piece for row in rows for piece in _slices(row, elements)]
    live = [piece for piece in pieces if piece.scale > 0]
    if not live:
        raise UsageError("every product of these rows is zero, so there is nothing to simulate; give other inputs")
    circuits = [circuit_of(test, *_states(piece)) for piece in live]
    ready = [simulator.translated(circuit, machine, seed) for circuit in circuits]
    what = f"the {test.value} tests of {len(live)} slices"
    counts = iter(simulator.sampled(ready, shots, seed, machine, limits, what))
    zeros = [next(counts).get(ZERO, 0) if piece.scale > 0 else 0 for piece in pieces]
    found = [_estimated(piece, test, read, shots, len(live)) for piece, read in zip(pieces, zeros, strict=True)]
    largest = max(range(len(ready)), key=lambda place: simulator.counts_of(ready[place]).gates)
    return Simulation(
        test, "" if machine is None else machine.name, shots, seed, tuple(found), _outputs(rows, found, test),
        simulator.counts_of(ready[largest]), simulator.counts_of(circuits[largest]), picture_of(circuits[largest]),
    )  # fmt: skip


def _check(rows: Sequence[Row], elements: int, shots: int) -> None:
    if not rows:
        raise UsageError("no row of the layer was given; give one or more")
    if not 1 <= elements <= MOST_ELEMENTS:
        raise UsageError(f"a slice of {elements} elements cannot be simulated here; allowed are 1 to {MOST_ELEMENTS}")
    if shots < 1:
        raise UsageError(f"shots is {shots}; allowed is 1 or more")


def _slices(row: Row, elements: int) -> Iterator[_Slice]:
    for first in range(0, len(row.weights), elements):
        part = slice(first, first + elements)
        yield _Slice(row, first, row.weights[part], row.inputs[part])


def _states(piece: _Slice) -> tuple[Vector, Vector]:
    one, other = padded(piece.weights), padded(piece.inputs)
    return one / np.linalg.norm(one), other / np.linalg.norm(other)


def _estimated(piece: _Slice, test: OverlapTest, zeros: int, shots: int, family: int) -> SliceEstimate:
    """What was read of one slice. The confidence of `agrees` is corrected for the number of slices (Bonferroni)."""
    if piece.scale == 0:
        nothing = Interval(0.0, 0.0, 0.0)
        return SliceEstimate(piece.row.place, piece.first, piece.elements, 0.0, 0.0, nothing, 0, 0, True)
    usual, wide = (
        scaled(overlap(test, zeros, shots, confidence), piece.scale)
        for confidence in (CONFIDENCE, 1 - FALSE_ALARM / family)
    )
    exact = piece.exact(test)
    return SliceEstimate(
        piece.row.place, piece.first, piece.elements, piece.scale, exact, usual, zeros, shots, holds(wide, exact)
    )


def _outputs(rows: Sequence[Row], found: Sequence[SliceEstimate], test: OverlapTest) -> tuple[OutputEstimate, ...]:
    """Whole outputs; a swap test gives none, as sums need signs."""
    if test is OverlapTest.SWAP:
        return ()
    outputs = []
    for row in rows:
        parts = [one.estimate for one in found if one.place == row.place]
        outputs.append(OutputEstimate(row.place, row.exact, total(parts, row.bias), len(parts)))
    return tuple(outputs)


def kept_signal(found: Simulation) -> float:
    """By which factor noise shrinks the overlaps: the slope of the estimates over the classical values, by least
    squares.

    1 keeps them whole, 0 destroys them; shot noise moves it, and for a swap test it also holds what noise adds to an
    absolute value. Not a number where every classical value is 0.
    """
    power = math.fsum(one.exact**2 for one in found.slices)
    return math.fsum(one.estimate.value * one.exact for one in found.slices) / power if power else math.nan
