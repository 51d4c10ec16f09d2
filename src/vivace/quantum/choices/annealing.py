"""Simulated annealing of a quadratic function of bits: a heuristic of classical machines, for comparison.

Source: Kirkpatrick, Gelatt and Vecchi, Science 220 (1983), 671.
"""

from __future__ import annotations

import math
import random

from vivace.quantum.choices.answer import Found
from vivace.quantum.choices.problem import Choice
from vivace.quantum.choices.qubo import Qubo

SWEEPS, RESTARTS = 200, 8
HOT, COLD = 2.0, 1e-3
"""Temperatures of the first and the last sweep, as shares of the largest change that one bit can make."""


def solve(choice: Choice, seed: int = 0, sweeps: int = SWEEPS, restarts: int = RESTARTS) -> Found:
    """The best choice that some annealings meet; the same seed gives the same one. An evaluation is a bit that is
    tried."""
    qubo = choice.qubo()
    beside = _beside(qubo)
    dice = random.Random(seed)
    best: tuple[float, tuple[int, ...]] | None = None
    for _ in range(restarts):
        bits, energy = _annealed(qubo, beside, dice, sweeps)
        if best is None or energy < best[0]:
            best = energy, bits
    chosen = choice.decoded(best[1]) if best is not None else None
    note = "" if chosen is not None else "the best state that it met breaks a rule of the bits"
    return Found(chosen, restarts * sweeps * qubo.bits, "bits tried", note)


def _beside(qubo: Qubo) -> list[list[tuple[int, float]]]:
    """For each bit those that it is coupled with."""
    found: list[list[tuple[int, float]]] = [[] for _ in range(qubo.bits)]
    for (i, j), weight in qubo.quadratic.items():
        found[i].append((j, weight))
        found[j].append((i, weight))
    return found


def _annealed(
    qubo: Qubo, beside: list[list[tuple[int, float]]], dice: random.Random, sweeps: int
) -> tuple[tuple[int, ...], float]:
    """One annealing from a random state, with the best state that it met."""
    bits = [dice.randrange(2) for _ in range(qubo.bits)]
    energy = qubo.energy(bits)
    best = tuple(bits), energy
    most = max(abs(w) + sum(abs(v) for _, v in near) for w, near in zip(qubo.linear, beside, strict=True)) or 1.0
    for sweep in range(sweeps):
        temperature = most * HOT * (COLD / HOT) ** (sweep / max(1, sweeps - 1))
        for bit in range(qubo.bits):
            change = qubo.linear[bit] + sum(weight for other, weight in beside[bit] if bits[other])
            change = -change if bits[bit] else change
            if change <= 0 or dice.random() < math.exp(-change / temperature):
                bits[bit] ^= 1
                energy += change
                if energy < best[1]:
                    best = tuple(bits), energy
    return best
