"""Circuits run on Qiskit Aer: as they are, or translated to a machine's gates and pairs and disturbed as it disturbs.

The noise is that of gates and readings at the machine's medians: after each gate a depolarizing channel with the
published error, at each reading a flipped bit with the published share. Decay of qubits that wait, crosstalk, leakage
and qubits worse than the median are left out, so that a real machine does worse.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from vivace.quantum import extra
from vivace.quantum.limits import (
    STANDARD,
    Demand,
    SimulationLimits,
    check,
    demand,
    mixed_demand,
    trajectories_demand,
)
from vivace.quantum.machines import QuantumMachine

SHOTS = 4096
MIXED_QUBITS = 10
"""Up to so many qubits noise is computed exactly, with a density matrix; beyond by trajectories, one a shot."""
EFFORT = 1
"""Qiskit's optimization level; higher ones take longer and remove little from circuits of dense rotations."""


@dataclasses.dataclass(frozen=True)
class GateCounts:
    """What a circuit consists of: qubits that it uses, depth, gates on two qubits and on one, readings."""

    qubits: int
    depth: int
    two_qubit: int
    one_qubit: int
    readings: int

    @property
    def gates(self) -> int:
        """Gates of both kinds."""
        return self.two_qubit + self.one_qubit


def translated(circuit: Any, machine: QuantumMachine | None, seed: int = 0) -> Any:
    """The circuit in a machine's basis gates, on its coupled pairs; without a machine in the gates cx and u."""
    extra.require()
    if machine is None:
        return extra.qiskit().transpile(
            circuit, basis_gates=["cx", "u"], optimization_level=EFFORT, seed_transpiler=seed
        )
    return extra.qiskit().transpile(
        circuit,
        basis_gates=list(machine.basis),
        coupling_map=_coupling(machine.name, machine.pairs) if machine.pairs else None,
        optimization_level=EFFORT,
        seed_transpiler=seed,
    )


def counts_of(circuit: Any) -> GateCounts:
    """What a translated circuit consists of; turns about Z are no gates where they are made in software (rz)."""
    two = one = readings = 0
    used: set[Any] = set()
    for step in circuit.data:
        name = step.operation.name
        if name == "barrier":
            continue
        used.update(step.qubits)
        readings += name == "measure"
        two += len(step.qubits) == 2 and name != "measure"
        one += len(step.qubits) == 1 and name not in ("measure", "rz")
    return GateCounts(len(used), int(circuit.depth(lambda step: step.operation.name != "rz")), two, one, readings)


def cost(what: str, circuit: Any, shots: int, machine: QuantumMachine | None) -> Demand:
    """What simulating a translated circuit is expected to take."""
    found = counts_of(circuit)
    if machine is None:
        return demand(what, found.qubits, found.gates)
    if found.qubits <= MIXED_QUBITS:
        return mixed_demand(what, found.qubits, found.gates)
    return trajectories_demand(what, found.qubits, found.gates, shots)


def sampled(
    circuits: Sequence[Any],
    shots: int = SHOTS,
    seed: int = 0,
    machine: QuantumMachine | None = None,
    limits: SimulationLimits = STANDARD,
    what: str = "the circuits",
) -> list[dict[str, int]]:
    """How often each reading was seen, for each of some translated circuits: SIMULATED, with the machine's noise if one
    is given. Bits of a reading stand as qiskit writes them, the last classical bit first.

    The same seed gives the same counts. Raises UsageError where the simulation is beyond the limits.
    """
    needs = [cost(what, circuit, shots, machine) for circuit in circuits]
    if not needs:
        return []
    check(
        Demand(
            what,
            max(need.qubits for need in needs),
            max(need.memory_bytes for need in needs),
            sum(need.seconds for need in needs),
        ),
        limits,
    )
    is_mixed = machine is not None and max(need.qubits for need in needs) <= MIXED_QUBITS
    method = "density_matrix" if is_mixed else "statevector"
    simulator = extra.aer().AerSimulator(
        method=method, noise_model=None if machine is None else _noise(machine.name, machine), max_parallel_threads=1
    )
    result = simulator.run(list(circuits), shots=shots, seed_simulator=seed).result()
    return [dict(result.get_counts(place)) for place in range(len(circuits))]


@functools.cache
def _coupling(name: str, pairs: tuple[tuple[int, int], ...]) -> Any:
    from qiskit.transpiler import CouplingMap

    return CouplingMap([pair for a, b in pairs for pair in ((a, b), (b, a))])


@functools.cache
def _noise(name: str, machine: QuantumMachine) -> Any:
    """The machine's noise. An average infidelity e of a gate on d levels is a depolarizing channel of strength
    e d / (d - 1): Nielsen, Physics Letters A 303 (2002), 249."""
    from qiskit_aer.noise import NoiseModel, ReadoutError, depolarizing_error

    model = NoiseModel(basis_gates=list(machine.basis))
    model.add_all_qubit_quantum_error(depolarizing_error(machine.one_qubit_error * 2, 1), ["sx", "x"])
    model.add_all_qubit_quantum_error(depolarizing_error(machine.two_qubit_error * 4 / 3, 2), [machine.two_qubit_gate])
    flipped = machine.readout_error
    model.add_all_qubit_readout_error(ReadoutError([[1 - flipped, flipped], [flipped, 1 - flipped]]))
    return model
