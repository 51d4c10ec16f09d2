"""What a layer would take on machines that exist: the circuit in their gates, time of a shot, share without an
error."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from vivace.quantum import simulator
from vivace.quantum.layers.overlap import OverlapTest, hadamard_test
from vivace.quantum.layers.preparation import qubits_for
from vivace.quantum.machines import QuantumMachine
from vivace.quantum.resources.logical import Work, shots_for
from vivace.quantum.simulator import GateCounts

LARGEST = 256
"""Elements of the largest circuit that is translated; larger ones have as many times its gates as elements, which is
exact before routing (every number is loaded) and too few after it (paths grow longer)."""


@dataclasses.dataclass(frozen=True)
class ProductCircuit:
    """The Hadamard test of two vectors of `elements` numbers in a machine's gates; `is_scaled` where a smaller one was
    translated and its gates multiplied. `shot_seconds` is from the start of one shot to the next; None where the
    machine's times are not published. `error_free` is the share of shots in which no gate and no reading goes wrong."""

    machine: str
    elements: int
    counts: GateCounts
    is_scaled: bool
    error_free: float
    shot_seconds: float | None


@dataclasses.dataclass(frozen=True)
class MachineEstimate:
    """A layer on one machine, PREDICTED. `copies` circuits run side by side, as many as its qubits could hold if they
    were packed without a gap; `seconds` is for all products at the stated error, None where times are not published.
    `reason` says why the machine cannot hold even one."""

    machine: str
    circuit: ProductCircuit | None
    shots: int
    copies: int
    seconds: float | None
    reason: str = ""


def product_circuit(elements: int, machine: QuantumMachine, seed: int = 0) -> ProductCircuit:
    """The circuit of one inner product of dense vectors on a machine."""
    shown = min(elements, LARGEST)
    vectors = np.random.default_rng(seed).standard_normal((2, 1 << qubits_for(shown)))
    one, other = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    ready = simulator.translated(hadamard_test(one, other), machine, seed)
    counts, path = simulator.counts_of(ready), _seconds(ready, machine)
    factor = (1 << qubits_for(elements)) // (1 << qubits_for(shown))
    if factor > 1:
        counts = GateCounts(
            OverlapTest.HADAMARD.qubits(elements), counts.depth * factor, counts.two_qubit * factor,
            counts.one_qubit * factor, counts.readings,
        )  # fmt: skip
    right = (
        (1 - machine.two_qubit_error) ** counts.two_qubit
        * (1 - machine.one_qubit_error) ** counts.one_qubit
        * (1 - machine.readout_error) ** counts.readings
    )  # fmt: skip
    between = machine.between_shots_seconds
    shot = None if path is None or between is None else path * factor + between
    return ProductCircuit(machine.name, elements, counts, factor > 1, right, shot)


def machine_estimate(
    work: Work, machine: QuantumMachine, error: float, known: Mapping[int, ProductCircuit] | None = None
) -> MachineEstimate:
    """A layer on one machine at a standard error of each normalized inner product. `known` holds circuits by their
    count of elements."""
    needed, shots = OverlapTest.HADAMARD.qubits(work.elements), shots_for(error)
    if needed > machine.qubits:
        return MachineEstimate(
            machine.name, None, shots, 0, None, f"it has {machine.qubits} qubits, and {needed} are needed"
        )
    circuit = (known or {}).get(work.elements) or product_circuit(work.elements, machine)
    copies = max(1, machine.qubits // needed)
    if circuit.shot_seconds is None:
        return MachineEstimate(machine.name, circuit, shots, copies, None)
    rounds = -(-work.products // copies)
    return MachineEstimate(machine.name, circuit, shots, copies, rounds * shots * circuit.shot_seconds)


def _seconds(circuit: Any, machine: QuantumMachine) -> float | None:
    """The longest path of gates through a translated circuit, with the reading; None where times are not published."""
    if not machine.has_times:
        return None
    lasting = {1: machine.one_qubit_seconds or 0.0, 2: machine.two_qubit_seconds or 0.0}
    ready: dict[Any, float] = {}
    for step in circuit.data:
        name = step.operation.name
        took = machine.readout_seconds or 0.0 if name == "measure" else 0.0
        if name not in ("measure", "rz", "barrier"):
            took = lasting[len(step.qubits)]
        end = max(ready.get(qubit, 0.0) for qubit in step.qubits) + took
        ready.update(dict.fromkeys(step.qubits, end))
    return max(ready.values(), default=0.0)
