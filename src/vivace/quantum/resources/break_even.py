"""The verdict on a layer and on a model: how many times slower, and what would have to be true for a tie."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from vivace.quantum.machines import PhysicalQubit, QuantumMachine
from vivace.quantum.resources.fault_tolerance import FaultTolerant, fault_tolerant
from vivace.quantum.resources.logical import (
    LogicalCounts,
    Work,
    amplitude_estimation_counts,
    evaluations_for,
    hadamard_test_counts,
    shots_for,
)
from vivace.quantum.resources.machine_time import MachineEstimate, ProductCircuit, machine_estimate


@dataclasses.dataclass(frozen=True)
class CorrectedEstimate:
    """A layer on an error-corrected machine, PREDICTED, one product after the other: by shots of the Hadamard test, or
    by amplitude estimation, which loads fewer times. `seconds` is for all products."""

    method: str
    loads: int
    run: FaultTolerant
    seconds: float


@dataclasses.dataclass(frozen=True)
class LayerEstimate:
    """What a layer takes as quantum computation, PREDICTED, beside the classical time, MEASURED here.

    `error` is the standard error of each inner product in units of both norms. `logical` counts one run of the Hadamard
    test. `classical_seconds` is None where it was not measured.
    """

    work: Work
    error: float
    logical: LogicalCounts
    machines: tuple[MachineEstimate, ...]
    corrected: tuple[CorrectedEstimate, ...]
    classical_seconds: float | None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How the fastest machine that exists compares with the classical time. `slower` is quantum_seconds over
    classical_seconds. For a tie a shot would have to take `needed_shot_seconds` instead of `shot_seconds`. `error_free`
    is the share of shots without an error at the largest circuit: where it is near 0 the answer would be noise.
    `corrected_slower` is the same ratio for the fastest error-corrected machine that is assumed."""

    machine: str
    quantum_seconds: float
    classical_seconds: float
    slower: float
    shot_seconds: float
    needed_shot_seconds: float
    error_free: float
    corrected_slower: float
    corrected_seconds: float
    corrected_qubits: int

    @property
    def power(self) -> int:
        """The power of ten that `slower` is about; below 0 the quantum machine would be the faster one."""
        return round(math.log10(self.slower))


def layer_estimate(
    work: Work,
    machines: Sequence[QuantumMachine],
    qubits: Sequence[PhysicalQubit],
    error: float,
    classical_seconds: float | None,
    known: dict[tuple[str, int], ProductCircuit],
) -> LayerEstimate:
    """What a layer takes on every machine. Circuits of the same size are translated once and kept in `known`."""
    found = []
    for machine in machines:
        sizes = {size: circuit for (name, size), circuit in known.items() if name == machine.name}
        estimate = machine_estimate(work, machine, error, sizes)
        if estimate.circuit is not None:
            known[machine.name, work.elements] = estimate.circuit
        found.append(estimate)
    corrected = tuple(one for qubit in qubits for one in _corrected(work, qubit, error))
    return LayerEstimate(work, error, hadamard_test_counts(work.elements), tuple(found), corrected, classical_seconds)


def _corrected(work: Work, qubit: PhysicalQubit, error: float) -> tuple[CorrectedEstimate, ...]:
    shots = shots_for(error)
    test = fault_tolerant(hadamard_test_counts(work.elements), qubit)
    amplitude = fault_tolerant(amplitude_estimation_counts(work.elements, error), qubit)
    return (
        CorrectedEstimate("shots", shots, test, work.products * shots * test.seconds),
        CorrectedEstimate(
            "amplitude estimation", 2 * evaluations_for(error), amplitude, work.products * amplitude.seconds
        ),
    )


def verdict(layers: Sequence[LayerEstimate]) -> Verdict | None:
    """The verdict on some layers together; None where no classical time was measured or no machine can hold them
    all."""
    classical = [layer.classical_seconds for layer in layers]
    if not layers or any(seconds is None for seconds in classical):
        return None
    measured = math.fsum(seconds for seconds in classical if seconds is not None)
    best = _fastest(layers)
    if best is None or measured <= 0:
        return None
    name, seconds, parts = best
    circuits = [part.circuit for part in parts if part.circuit is not None]
    largest = max(circuits, key=lambda circuit: circuit.elements)
    corrected = [
        (math.fsum(layer.corrected[place].seconds for layer in layers),
         max(layer.corrected[place].run.physical_qubits for layer in layers))
        for place in range(len(layers[0].corrected))
    ]  # fmt: skip
    least, held = min(corrected)
    shot = largest.shot_seconds or 0.0
    return Verdict(
        name, seconds, measured, seconds / measured, shot, shot * measured / seconds, largest.error_free,
        least / measured, least, held,
    )  # fmt: skip


def _fastest(layers: Sequence[LayerEstimate]) -> tuple[str, float, list[MachineEstimate]] | None:
    """The machine that takes the least time for all layers, with that time."""
    best: tuple[str, float, list[MachineEstimate]] | None = None
    for place, first in enumerate(layers[0].machines):
        parts = [layer.machines[place] for layer in layers]
        if any(part.seconds is None for part in parts):
            continue
        seconds = math.fsum(part.seconds for part in parts if part.seconds is not None)
        if best is None or seconds < best[1]:
            best = first.machine, seconds, parts
    return best
