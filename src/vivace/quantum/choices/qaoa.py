"""The quantum approximate optimization algorithm on the simulator: angles tuned on the exact state, then samples read.

Source: Farhi, Goldstone and Gutmann, arXiv:1411.4028. The tuning sees exact expectations, which no machine gives: a
real one would need many shots for each of them. The result is that of an ideal machine, and an upper bound for a real
one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vivace.quantum import extra
from vivace.quantum.choices.answer import Found
from vivace.quantum.choices.problem import Choice
from vivace.quantum.choices.qubo import Qubo, bits_of
from vivace.quantum.limits import STANDARD, Demand, SimulationLimits, demand

LAYERS = 3
TUNINGS = 80
SAMPLES = 1024
RAMP = 0.75
"""The largest angle of the first guess, which turns from mixing little to mixing much as annealing would: Sack and
Serbyn, Quantum 5 (2021), 491."""


def needs(qubo: Qubo, layers: int = LAYERS, tunings: int = TUNINGS) -> Demand:
    """What the whole tuning is expected to take on the simulator."""
    gates = qubo.bits + layers * (2 * qubo.bits + len(qubo.quadratic))
    return demand("QAOA", qubo.bits, gates, tunings + 1)


def solve(
    choice: Choice,
    seed: int = 0,
    limits: SimulationLimits = STANDARD,
    layers: int = LAYERS,
    tunings: int = TUNINGS,
    samples: int = SAMPLES,
) -> Found:
    """The best choice among the samples; an evaluation is a run of the circuit. None with the numbers where simulating
    it is beyond the limits."""
    qubo = choice.qubo()
    if reason := needs(qubo, layers, tunings).refusal(limits):
        return Found(None, 0, "circuit runs", reason)
    energies = qubo.energies()
    circuit = Ansatz(qubo, energies, layers)
    angles = _tuned(circuit, layers, tunings)
    weights = circuit.probabilities(angles)
    drawn = np.random.default_rng(seed).choice(len(weights), samples, p=weights / weights.sum())
    best = int(drawn[np.argmin(energies[drawn])])
    chosen = choice.decoded(bits_of(best, qubo.bits))
    least = energies.min()
    is_best = energies <= least + 1e-9 * max(1e-300, abs(least))
    note = "" if chosen is not None else "the best sample breaks a rule of the bits"
    return Found(chosen, circuit.runs, "circuit runs", note, int(is_best[drawn].sum()), samples, float(is_best.mean()))


class Ansatz:
    """The circuit of some layers, its angles open: layer by layer a turn by the energy and a turn about X."""

    def __init__(self, qubo: Qubo, energies: NDArray[np.float64], layers: int) -> None:
        self.runs = 0
        self._spread = float(energies.std()) or 1.0
        self._energies = (energies - energies.mean()) / self._spread
        self._simulator = extra.aer().AerSimulator(method="statevector", max_parallel_threads=1)
        self._circuit, self._angles = _circuit(qubo, self._spread, layers)

    def probabilities(self, angles: NDArray[np.float64]) -> NDArray[np.float64]:
        """How likely each state is to be read."""
        self.runs += 1
        bound = self._circuit.assign_parameters(dict(zip(self._angles, angles.tolist(), strict=True)))
        state = np.asarray(self._simulator.run(bound).result().get_statevector())
        weights: NDArray[np.float64] = np.abs(state) ** 2
        return weights

    def expectation(self, angles: NDArray[np.float64]) -> float:
        """The mean energy, in standard deviations of all states from their mean."""
        return float(self.probabilities(angles) @ self._energies)


def _circuit(qubo: Qubo, spread: float, layers: int) -> tuple[Any, list[Any]]:
    from qiskit.circuit import Parameter

    extra.aer()  # gives circuits `save_statevector`
    fields, couplings = qubo.ising()
    circuit = extra.qiskit().QuantumCircuit(qubo.bits)
    angles: list[Any] = []
    circuit.h(range(qubo.bits))
    for layer in range(layers):
        energy, mixing = Parameter(f"energy{layer}"), Parameter(f"mixing{layer}")
        angles += [energy, mixing]
        for bit, field in enumerate(fields):
            if field:
                circuit.rz(2 * float(field) / spread * energy, bit)
        for (i, j), weight in couplings.items():
            circuit.rzz(2 * weight / spread * energy, i, j)
        circuit.rx(2 * mixing, range(qubo.bits))
    circuit.save_statevector()
    return circuit, angles


def _tuned(circuit: Ansatz, layers: int, tunings: int) -> NDArray[np.float64]:
    """Angles of a low mean energy: a ramp, then Powell's method without gradients (COBYLA)."""
    from scipy.optimize import minimize  # comes with qiskit, which needs it

    share = (np.arange(layers) + 0.5) / layers
    start = np.stack([RAMP * share, RAMP * (1 - share)], axis=1).ravel()
    found = minimize(circuit.expectation, start, method="COBYLA", options={"maxiter": tunings, "rhobeg": 0.2})
    return np.asarray(found.x, dtype=np.float64)
