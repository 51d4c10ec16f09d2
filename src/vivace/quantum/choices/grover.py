"""Minimum finding by Grover search on the simulator: thresholds fall until no state is below them.

Source: Durr and Hoyer, quant-ph/9607014, with the growing number of rounds of Boyer, Brassard, Hoyer and Tapp,
quant-ph/9605034. The oracle that marks the states below a threshold is a table of all energies, which the simulator
needs and a machine would have to compute in superposition: its calls are counted, what a call takes is not. Filling the
table took as many evaluations as trying every state.
"""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vivace.quantum import extra
from vivace.quantum.choices.answer import Found
from vivace.quantum.choices.problem import Choice
from vivace.quantum.choices.qubo import bits_of
from vivace.quantum.limits import STANDARD, Demand, SimulationLimits, demand

GROWTH = 6 / 5
"""Of the range that the number of rounds is drawn from, after a miss."""
PATIENCE = 9
"""Times sqrt(N) calls without a better state end the search: twice what finding a single better one takes on
average."""


def most_calls(states: int) -> float:
    """After how many oracle calls the minimum is held with probability 1/2 or more: 22.5 sqrt(N) + 1.4 log2(N)^2.

    >>> most_calls(1024)
    860.0
    """
    return 22.5 * math.sqrt(states) + 1.4 * math.log2(states) ** 2


def needs(bits: int) -> Demand:
    """What a search of that many calls is expected to take on the simulator."""
    calls = most_calls(2**bits)
    return demand("Grover minimum finding", bits, math.ceil(calls * (2 * bits + 2)), 1)


def solve(choice: Choice, seed: int = 0, limits: SimulationLimits = STANDARD) -> Found:
    """The best choice that was read; an evaluation is a call of the oracle. It stops when the bound on calls is
    reached, or a search at the last threshold has used its share: it never learns from the table that it is done.

    None with the numbers where simulating it is beyond the limits.
    """
    qubo = choice.qubo()
    if reason := needs(qubo.bits).refusal(limits):
        return Found(None, 0, "oracle calls", reason)
    energies = qubo.energies()
    state, calls, held_after = minimum(energies, seed)
    chosen = choice.decoded(bits_of(state, qubo.bits))
    note = f"it held this after {held_after} calls; filling the oracle's table took {len(energies):,} evaluations"
    broken = "the state that it holds breaks a rule of the bits; "
    return Found(chosen, calls, "oracle calls", note if chosen is not None else broken + note)


def minimum(energies: NDArray[np.float64], seed: int = 0) -> tuple[int, int, int]:
    """The state that the search holds at its end, the calls of the oracle that it made, and after how many it held
    that.

    It is the minimum with probability 1/2 or more, in practice nearly always; `energies` has a power of two of them.
    """
    bits = int(math.log2(len(energies)))
    dice = random.Random(seed)
    simulator = extra.aer().AerSimulator(method="statevector", max_parallel_threads=1)
    held, calls, held_after, width = dice.randrange(len(energies)), 0, 0, 1.0
    most, misses = most_calls(len(energies)), 0
    while calls < most and misses < PATIENCE * math.sqrt(len(energies)):
        rounds = dice.randrange(math.ceil(width))
        read = _read(simulator, energies < energies[held], bits, rounds, dice.randrange(2**31))
        calls += rounds + 1  # the last call checks what was read
        if energies[read] < energies[held]:
            held, held_after, width, misses = read, calls, 1.0, 0
        else:
            misses += rounds + 1
            width = min(GROWTH * width, math.sqrt(len(energies)))
    return held, calls, held_after


def _read(simulator: Any, marked: NDArray[np.bool_], bits: int, rounds: int, seed: int) -> int:
    """One reading after so many rounds of Grover's search for the marked states."""
    circuit = search_circuit(marked, bits, rounds)
    counts = simulator.run(circuit, shots=1, seed_simulator=seed).result().get_counts()
    return int(next(iter(counts)), 2)


def search_circuit(marked: NDArray[np.bool_], bits: int, rounds: int) -> Any:
    """The circuit of so many rounds: the oracle turns the sign of marked states, then all amplitudes are mirrored about
    their mean."""
    from qiskit.circuit.library import DiagonalGate

    circuit = extra.qiskit().QuantumCircuit(bits, bits)
    oracle = DiagonalGate(np.where(marked, -1.0, 1.0).tolist())
    mirror = DiagonalGate([1.0] + [-1.0] * (2**bits - 1))
    circuit.h(range(bits))
    for _ in range(rounds):
        circuit.append(oracle, range(bits))
        circuit.h(range(bits))
        circuit.append(mirror, range(bits))
        circuit.h(range(bits))
    circuit.measure(range(bits), range(bits))
    return circuit
