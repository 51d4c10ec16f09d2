"""Superposition: many states at once, and how it differs from a coin that was tossed: it can be taken back."""

from __future__ import annotations

from vivace.core.errors import UsageError
from vivace.quantum import extra
from vivace.quantum.intervals import proportion
from vivace.quantum.words.demonstration import Demonstration, Histogram, Runner, pictured

QUBITS = 3


def superposition(runner: Runner = Runner(), qubits: int = QUBITS) -> Demonstration:
    """Qubits in all their states at once, read; and the same with the Hadamard gates taken back before they are read.

    Tossed coins stay random if they are tossed again: they would read all zeros in 2^-qubits of all shots. Amplitudes
    interfere, and read all zeros always.
    """
    if not 1 <= qubits <= 8:
        raise UsageError(f"superposition received {qubits} qubits; allowed are 1 to 8")
    once = extra.qiskit().QuantumCircuit(qubits, qubits)
    once.h(range(qubits))
    twice = once.copy()
    twice.barrier()
    twice.h(range(qubits))
    for circuit in (once, twice):
        circuit.measure(range(qubits), range(qubits))
    counts = runner.counts([once, twice])
    picture, text = pictured(twice)
    return Demonstration(
        "superposition", "Superposition: all states at once, and interference",
        f"{qubits} qubits hold {2**qubits} amplitudes at once, and reading gives one of them at random. The same gates "
        "again bring them back to 0: they interfere, as coins do not.",
        "share of all zeros after both", proportion(counts[1].get("0" * qubits, 0), runner.shots), 2.0**-qubits, 1.0,
        (Histogram("read after one layer", counts[0]), Histogram("read after two layers", counts[1])),
        picture, text, runner.shots, runner.name,
        f"Reading gives {qubits} bits, never all {2**qubits} amplitudes.",
    )  # fmt: skip
