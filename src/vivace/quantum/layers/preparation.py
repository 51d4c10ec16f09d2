"""Amplitude encoding: a vector of 2^n real numbers becomes the state of n qubits, by a tree of turns about Y.

Source: Mottonen, Vartiainen, Bergholm and Salomaa, Quantum Information and Computation 5 (2005), 467
(quant-ph/0407010): a vector of N numbers takes N - 1 turns and N - 2 controlled-NOT gates. Loading is linear in N,
whatever comes after it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vivace.core.errors import UsageError

Vector = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Turn:
    """A turn of one qubit about Y by `angle`, and then a controlled-NOT on it from `control`; none where that is None.
    Qubit 0 is the last bit of a vector's index."""

    qubit: int
    angle: float
    control: int | None


def padded(values: Sequence[float] | Vector) -> Vector:
    """The numbers in double precision, with zeros up to the next power of two, at least two.

    Raises UsageError where there are none, or one is not finite.

    >>> padded([1.0, 2.0, 3.0]).tolist()
    [1.0, 2.0, 3.0, 0.0]
    """
    given = np.asarray(values, dtype=np.float64).ravel()
    if not given.size or not np.isfinite(given).all():
        raise UsageError(f"a vector of {given.size} numbers cannot be encoded; allowed are finite numbers, one or more")
    size = 1 << max(1, math.ceil(math.log2(given.size)))
    return np.concatenate([given, np.zeros(size - given.size)])


def qubits_for(elements: int) -> int:
    """How many qubits hold so many numbers.

    >>> qubits_for(64), qubits_for(65), qubits_for(1)
    (6, 7, 1)
    """
    return max(1, math.ceil(math.log2(elements)))


def turns(state: Vector) -> Iterator[Turn]:
    """The turns that make a state of real amplitudes from all qubits at 0, in their order. `state` has a length that is
    a power of two and the norm 1.

    >>> [round(turn.angle, 4) for turn in turns(np.array([0.6, -0.8]))]
    [-1.8546]
    """
    count = qubits_for(len(state))
    for level in range(count):
        target = count - 1 - level
        angles = _uniform_angles(_branch_angles(state, level))
        for place, angle in enumerate(angles):
            control = None if level == 0 else target + 1 + _changed_bit(place, level)
            yield Turn(target, float(angle), control)


def append_state(circuit: Any, state: Vector, first: int = 0) -> None:
    """Append the turns that make `state` to a circuit, on its qubits from `first` on, which must be at 0."""
    for turn in turns(state):
        circuit.ry(turn.angle, first + turn.qubit)
        if turn.control is not None:
            circuit.cx(first + turn.control, first + turn.qubit)


def _branch_angles(state: Vector, level: int) -> Vector:
    """For each of the 2^level branches the turn that parts its weight between its two halves."""
    parts = state.reshape(1 << level, 2, -1)
    if parts.shape[2] == 1:  # amplitudes themselves, with their signs
        low, high = parts[:, 0, 0], parts[:, 1, 0]
    else:
        low, high = np.linalg.norm(parts, axis=2).T
    angles: Vector = 2 * np.arctan2(high, low)
    return angles


def _uniform_angles(angles: Vector) -> Vector:
    """The angles between which controlled-NOT gates stand so that branch j turns by angles[j]: their Walsh-Hadamard
    transform in the order of the Gray code."""
    size = len(angles)
    found = angles.copy()
    width = 1
    while width < size:
        pairs = found.reshape(-1, 2, width)
        found = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).reshape(-1)
        width *= 2
    gray = np.arange(size) ^ (np.arange(size) >> 1)
    ordered: Vector = found[gray] / size
    return ordered


def _changed_bit(place: int, level: int) -> int:
    """The bit in which the Gray codes of `place` and of the next place differ; after the last comes the first again."""
    following = place + 1
    return level - 1 if following == 1 << level else (following & -following).bit_length() - 1
