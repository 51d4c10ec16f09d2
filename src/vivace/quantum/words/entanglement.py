"""Entanglement: pairs and triples whose readings agree more than any that were separate could, and the CHSH game."""

from __future__ import annotations

import math
from typing import Any

from vivace.quantum import extra
from vivace.quantum.intervals import scaled, total
from vivace.quantum.words.demonstration import Demonstration, Histogram, Runner, parity, pictured

CLASSICAL = 2.0
"""What |S| cannot exceed if both sides have answers before they are asked: Clauser, Horne, Shimony and Holt, Physical
Review Letters 23 (1969), 880."""


def bell_circuit() -> Any:
    """Two qubits in (|00> + |11>) / sqrt(2), not read."""
    circuit = extra.qiskit().QuantumCircuit(2, 2)
    circuit.h(0)
    circuit.cx(0, 1)
    return circuit


def bell(runner: Runner = Runner()) -> Demonstration:
    """A Bell pair, read along Z and along X: both agree, which separate qubits can do for one of the two alone."""
    along_z, along_x = bell_circuit(), bell_circuit()
    along_x.h([0, 1])
    circuits = [along_z, along_x]
    for circuit in circuits:
        circuit.measure([0, 1], [0, 1])
    counts = runner.counts(circuits)
    picture, text = pictured(along_x)
    return Demonstration(
        "bell", "Bell pair: entanglement of two qubits",
        "Two qubits agree along Z and also along X. Two that are separate, in whatever states, reach 1 at the most.",
        "<ZZ> + <XX>", total([parity(one) for one in counts]), 1.0, 2.0,
        (Histogram("read along Z", counts[0]), Histogram("read along X", counts[1])),
        picture, text, runner.shots, runner.name,
        "Either qubit alone reads 0 and 1 like a fair coin, so nothing is sent from one to the other.",
    )  # fmt: skip


def ghz_circuit(qubits: int = 3) -> Any:
    """Qubits in (|0...0> + |1...1>) / sqrt(2), not read."""
    circuit = extra.qiskit().QuantumCircuit(qubits, qubits)
    circuit.h(0)
    for qubit in range(1, qubits):
        circuit.cx(qubit - 1, qubit)
    return circuit


def ghz(runner: Runner = Runner()) -> Demonstration:
    """Three qubits in a GHZ state, by Mermin's inequality: Physical Review Letters 65 (1990), 1838."""
    settings = ("XXX", "XYY", "YXY", "YYX")
    circuits = [_read_along(ghz_circuit(), setting) for setting in settings]
    counts = runner.counts(circuits)
    signs = [1.0 if setting == "XXX" else -1.0 for setting in settings]
    value = total([scaled(parity(one), sign) for one, sign in zip(counts, signs, strict=True)])
    picture, text = pictured(circuits[1])
    return Demonstration(
        "ghz", "GHZ state: entanglement of three qubits",
        "The sum of four products of readings reaches 4. With answers that are there before they are asked it is "
        "2 at the most.",
        "<XXX> - <XYY> - <YXY> - <YYX>", value, 2.0, 4.0,
        tuple(Histogram(f"read along {s}", c) for s, c in zip(settings, counts, strict=True)),
        picture, text, runner.shots, runner.name,
        "Reading one of the three ends the entanglement of the other two.",
    )  # fmt: skip


def chsh(runner: Runner = Runner()) -> Demonstration:
    """The CHSH game on a Bell pair: S reaches 2 sqrt(2), and classical sides 2."""
    settings = {"a b": (0.0, math.pi / 4), "a b'": (0.0, -math.pi / 4),
                "a' b": (math.pi / 2, math.pi / 4), "a' b'": (math.pi / 2, -math.pi / 4)}  # fmt: skip
    circuits = [_chsh_circuit(*angles) for angles in settings.values()]
    counts = runner.counts(circuits)
    signs = (1.0, 1.0, 1.0, -1.0)
    value = total([scaled(parity(one), sign) for one, sign in zip(counts, signs, strict=True)])
    picture, text = pictured(circuits[0])
    return Demonstration(
        "chsh", "CHSH: correlations beyond the classical bound",
        "Each side chooses one of two directions to read along. The sum of four correlations exceeds 2, the bound for "
        "sides that have their answers before they are asked.",
        "S = E(a,b) + E(a,b') + E(a',b) - E(a',b')", value, CLASSICAL, 2 * math.sqrt(2),
        tuple(Histogram(f"read along {s}", c) for s, c in zip(settings, counts, strict=True)),
        picture, text, runner.shots, runner.name,
        "A simulator gets there by multiplying amplitudes; only a machine whose sides are apart tests nature.",
    )  # fmt: skip


def _chsh_circuit(first: float, second: float) -> Any:
    """A Bell pair of which each qubit is read along a direction in the plane of Z and X, at this angle from Z."""
    circuit = bell_circuit()
    circuit.ry(-first, 0)
    circuit.ry(-second, 1)
    circuit.measure([0, 1], [0, 1])
    return circuit


def _read_along(circuit: Any, setting: str) -> Any:
    """The circuit with its qubits read along X or Y each."""
    for qubit, axis in enumerate(setting):
        if axis == "Y":
            circuit.sdg(qubit)
        circuit.h(qubit)
    circuit.measure(range(len(setting)), range(len(setting)))
    return circuit
