"""Circuits that estimate the inner product of two vectors: the Hadamard test, which has its sign, and the swap test."""

from __future__ import annotations

import math
from enum import Enum
from typing import Any

import numpy as np

from vivace.core.measurement import Interval
from vivace.quantum import extra
from vivace.quantum.intervals import CONFIDENCE, expectation
from vivace.quantum.layers.preparation import Vector, append_state, qubits_for

ZERO = "0"
"""The reading of the one measured qubit that is counted."""


class OverlapTest(Enum):
    """Which circuit is run."""

    HADAMARD = "hadamard"
    SWAP = "swap"

    def qubits(self, elements: int) -> int:
        """How many qubits it takes for vectors of so many numbers.

        >>> OverlapTest.HADAMARD.qubits(64), OverlapTest.SWAP.qubits(64)
        (7, 13)
        """
        held = qubits_for(elements)
        return held + 1 if self is OverlapTest.HADAMARD else 2 * held + 1


def hadamard_test(one: Vector, other: Vector) -> Any:
    """The circuit whose qubit reads 0 with probability (1 + one . other) / 2, for vectors of norm 1 and equal length.

    The qubit is put into both states at once; its 0 is entangled with `one`, its 1 with `other`; a Hadamard gate lets
    the two interfere. Both are loaded together, as the state (one, other) / sqrt(2), which takes 2N - 1 turns and 2N -
    2 controlled-NOT gates. Source: Cleve, Ekert, Macchiavello and Mosca, Proceedings of the Royal Society A 454 (1998),
    339 (quant-ph/9708016).
    """
    held = qubits_for(len(one))
    circuit = extra.qiskit().QuantumCircuit(held + 1, 1)
    append_state(circuit, np.concatenate([one, other]) / math.sqrt(2))
    circuit.h(held)
    circuit.measure(held, 0)
    return circuit


def swap_test(one: Vector, other: Vector) -> Any:
    """The circuit whose qubit reads 0 with probability (1 + (one . other)^2) / 2: the sign is lost.

    Source: Buhrman, Cleve, Watrous and de Wolf, Physical Review Letters 87 (2001), 167902 (quant-ph/0102001).
    """
    held = qubits_for(len(one))
    circuit = extra.qiskit().QuantumCircuit(2 * held + 1, 1)
    append_state(circuit, one)
    append_state(circuit, other, held)
    circuit.h(2 * held)
    for qubit in range(held):
        circuit.cswap(2 * held, qubit, held + qubit)
    circuit.h(2 * held)
    circuit.measure(2 * held, 0)
    return circuit


def circuit_of(test: OverlapTest, one: Vector, other: Vector) -> Any:
    """The circuit of a test."""
    return hadamard_test(one, other) if test is OverlapTest.HADAMARD else swap_test(one, other)


def overlap(test: OverlapTest, zeros: int, shots: int, confidence: float = CONFIDENCE) -> Interval:
    """The inner product of two vectors of norm 1 from how often 0 was read, with its shot-noise interval; of a swap
    test its absolute value.

    The interval is that of a binomial share, carried through p -> 2p - 1, and for a swap test through the square root,
    so that it holds the true value as often as the share's does.

    >>> overlap(OverlapTest.HADAMARD, 250, 1000).value, overlap(OverlapTest.SWAP, 625, 1000).value
    (-0.5, 0.5)
    """
    found = expectation(zeros, shots, confidence)
    if test is OverlapTest.HADAMARD:
        return found
    value, low, high = (math.sqrt(max(0.0, one)) for one in (found.value, found.low, found.high))
    return Interval(value, low, high)
