"""Entanglement of two qubits: a Bell pair agrees along two directions at once: python examples/bell_pair.py"""

from __future__ import annotations

from qiskit import QuantumCircuit

from vivace.quantum.intervals import total
from vivace.quantum.simulator import sampled, translated
from vivace.quantum.words.demonstration import parity


def bell_pair() -> QuantumCircuit:
    """(|00> + |11>) / sqrt(2)."""
    circuit = QuantumCircuit(2, 2)
    circuit.h(0)
    circuit.cx(0, 1)
    return circuit


def main(time: str = "") -> None:
    """Read the pair along Z, and along X; separate qubits agree along one of the two alone."""
    along_z, along_x = bell_pair(), bell_pair()
    along_x.h([0, 1])
    for circuit in (along_z, along_x):
        circuit.measure([0, 1], [0, 1])
    print(along_z.draw("text"))
    counts = sampled([translated(circuit, None) for circuit in (along_z, along_x)], shots=4096)
    print(f"along Z: {counts[0]}\nalong X: {counts[1]}")
    witness = total([parity(one) for one in counts])
    print(f"<ZZ> + <XX> = {witness} (SIMULATED, 95%); separate qubits reach 1 at the most")
    assert witness.low > 1


if __name__ == "__main__":
    main()
