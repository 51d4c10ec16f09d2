"""What inner products take before any machine is chosen: qubits, turns, gates on two qubits, T gates, shots."""

from __future__ import annotations

import dataclasses
import math

from vivace.core.errors import UsageError
from vivace.quantum.layers.preparation import qubits_for

ERROR = 1 / 256
"""The standard error that is asked for of an inner product of vectors of norm 1 where none is given: 8 bits."""


@dataclasses.dataclass(frozen=True)
class Work:
    """The inner products of a layer in one call: so many, each of `elements` numbers.

    >>> Work("head", 640, 64).products
    640
    """

    layer: str
    products: int
    elements: int

    @property
    def multiplications(self) -> int:
        """What a classical machine does for it."""
        return self.products * self.elements


@dataclasses.dataclass(frozen=True)
class LogicalCounts:
    """One run of a circuit as an error-corrected machine counts it. Turns about an axis by any angle are `rotations`,
    which T gates approximate; `toffolis` are controlled-controlled-NOT gates, `t_gates` those that stand as such."""

    qubits: int
    rotations: int
    rotation_depth: int
    two_qubit: int
    toffolis: int = 0
    t_gates: int = 0
    readings: int = 1


def hadamard_test_counts(elements: int) -> LogicalCounts:
    """The Hadamard test of two vectors of so many numbers: the closed form of what `layers.overlap` builds.

    With N the next power of two: 2N - 1 turns one after the other on each qubit, 2N - 2 controlled-NOT gates.

    >>> hadamard_test_counts(64)
    LogicalCounts(qubits=7, rotations=127, rotation_depth=127, two_qubit=126, toffolis=0, t_gates=0, readings=1)
    """
    size = 2 << qubits_for(elements)
    return LogicalCounts(qubits_for(elements) + 1, size - 1, size - 1, size - 2)


def shots_for(error: float) -> int:
    """How often the Hadamard test must run for a standard error of at most `error`: 1 / error^2, at the overlap that
    needs the most, 0. Raises UsageError unless 0 < error < 1.

    >>> shots_for(1 / 256)
    65536
    """
    if not 0 < error < 1:
        raise UsageError(f"the error of an inner product is {error}; allowed is above 0 and below 1, such as 0.004")
    return math.ceil(1 / error**2 - 1e-9)


def evaluations_for(error: float) -> int:
    """How often amplitude estimation must run the test and its inverse for an error of at most `error`, which it meets
    in at least 8 of pi^2 runs (0.81): the M for which 2 (pi / M + pi^2 / M^2) = error.

    Source: Brassard, Hoyer, Mosca and Tapp, quant-ph/0005055, theorem 12, for a probability near 1/2.

    >>> evaluations_for(1 / 256)
    1612
    """
    shots_for(error)
    return math.ceil(math.pi * (1 + math.sqrt(1 + 2 * error)) / error)


def amplitude_estimation_counts(elements: int, error: float) -> LogicalCounts:
    """One inner product by amplitude estimation instead of shots: the quadratically smaller number of loads.

    Each evaluation loads both vectors and takes them back, and reflects about the start: a NOT gate controlled by all
    qubits and by one of the counting register, which takes a Toffoli gate less than it has controls. The counting
    register is read through a Fourier transform, whose turns are counted.
    """
    test, evaluations = hadamard_test_counts(elements), evaluations_for(error)
    counting = math.ceil(math.log2(evaluations))
    transform = counting * (counting - 1) // 2
    return LogicalCounts(
        test.qubits + counting,
        evaluations * 2 * test.rotations + transform,
        evaluations * 2 * test.rotation_depth + transform,
        evaluations * 2 * test.two_qubit + transform,
        toffolis=evaluations * test.qubits,
        readings=counting,
    )
