"""Quadratic functions of bits: the form in which annealing and circuits take a problem."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vivace.core.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Qubo:
    """constant + sum of linear[i] b_i + sum of quadratic[i, j] b_i b_j over bits b of 0 or 1, with i < j.

    Raises UsageError for a pair that is not in this order, or of bits that are not there.

    >>> Qubo((1.0, -2.0), {(0, 1): 4.0}, 0.5).energy((1, 1))
    3.5
    """

    linear: tuple[float, ...]
    quadratic: Mapping[tuple[int, int], float]
    constant: float = 0.0

    def __post_init__(self) -> None:
        for first, second in self.quadratic:
            if not 0 <= first < second < len(self.linear):
                raise UsageError(f"the pair of bits {(first, second)} is not in order below {len(self.linear)}")

    @property
    def bits(self) -> int:
        """How many bits there are, which is how many qubits it takes."""
        return len(self.linear)

    def energy(self, bits: Sequence[int]) -> float:
        """The value at some bits."""
        value = self.constant + sum(weight for weight, bit in zip(self.linear, bits, strict=True) if bit)
        return value + sum(weight for (i, j), weight in self.quadratic.items() if bits[i] and bits[j])

    def energies(self) -> NDArray[np.float64]:
        """The value at every state, in the order of the number whose bit i is b_i: 2^bits values."""
        values = np.full(1, self.constant)
        for bit, weight in enumerate(self.linear):
            with_bit = values + weight
            for (i, j), pair in self.quadratic.items():
                if j == bit:
                    with_bit = with_bit + pair * _is_set(len(values), i)
            values = np.concatenate([values, with_bit])
        return values

    def ising(self) -> tuple[NDArray[np.float64], dict[tuple[int, int], float]]:
        """Fields and couplings of the same function of spins z = 1 - 2 b, without its constant."""
        fields = -np.asarray(self.linear, dtype=np.float64) / 2
        couplings = {}
        for (i, j), weight in self.quadratic.items():
            fields[i] -= weight / 4
            fields[j] -= weight / 4
            couplings[i, j] = weight / 4
        return fields, couplings


class QuboSum:
    """A Qubo in the making: terms are added, products of linear forms too."""

    def __init__(self, bits: int) -> None:
        self._linear = [0.0] * bits
        self._quadratic: dict[tuple[int, int], float] = {}
        self._constant = 0.0

    def add(self, weight: float, *bits: int) -> None:
        """Add weight times a constant, a bit, or two bits (the same one twice is that bit)."""
        kinds = sorted(set(bits))
        if not kinds:
            self._constant += weight
        elif len(kinds) == 1:
            self._linear[kinds[0]] += weight
        else:
            pair = (kinds[0], kinds[1])
            self._quadratic[pair] = self._quadratic.get(pair, 0.0) + weight

    def add_product(
        self, one: Mapping[int | None, float], other: Mapping[int | None, float], weight: float = 1.0
    ) -> None:
        """Add weight times the product of two linear forms: bit to factor, None to the constant."""
        for a, left in one.items():
            for b, right in other.items():
                self.add(weight * left * right, *(bit for bit in (a, b) if bit is not None))

    def done(self) -> Qubo:
        """What came of it, without pairs of weight 0."""
        kept = {pair: weight for pair, weight in sorted(self._quadratic.items()) if weight}
        return Qubo(tuple(self._linear), kept, self._constant)


def bits_of(state: int, bits: int) -> tuple[int, ...]:
    """The bits of a state's number, the first bit first.

    >>> bits_of(6, 4)
    (0, 1, 1, 0)
    """
    return tuple(state >> bit & 1 for bit in range(bits))


def _is_set(states: int, bit: int) -> NDArray[np.float64]:
    return (np.arange(states) >> bit & 1).astype(np.float64)
