"""Choices as quadratic problems: the problem over bits is the choice, and the exact solver is exact."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from vivace.core.errors import UsageError
from vivace.quantum.choices import annealing, exact, grover, qaoa
from vivace.quantum.choices.answer import Solver, compared
from vivace.quantum.choices.problem import PrecisionChoice, StageChoice
from vivace.quantum.choices.qubo import Qubo, bits_of
from vivace.quantum.limits import SimulationLimits

pytest.importorskip("qiskit", reason="circuits need qiskit: pip install 'vivace[quantum]'")
pytest.importorskip("qiskit_aer", reason="circuits need qiskit-aer: pip install 'vivace[quantum]'")


def precisions(layers: int, kinds: int = 2, seed: int = 0) -> PrecisionChoice:
    dice = random.Random(seed)
    seconds = [tuple(dice.uniform(1, 3) for _ in range(kinds)) for _ in range(layers)]
    switches = [
        tuple(tuple(0.0 if a == b else dice.uniform(0, 1.5) for b in range(kinds)) for a in range(kinds))
        for _ in range(layers + 1)
    ]
    names = ("f32", "bf16", "int8")[:kinds]
    return PrecisionChoice(tuple(f"l{i}" for i in range(layers)), names, tuple(seconds), tuple(switches))


def stages(layers: int, count: int = 2, seed: int = 0, transfer: float = 0.4) -> StageChoice:
    dice = random.Random(seed)
    seconds = tuple(dice.uniform(0.5, 3) for _ in range(layers))
    transfers = tuple(dice.uniform(0, transfer) for _ in range(layers - 1))
    return StageChoice(tuple(f"l{i}" for i in range(layers)), seconds, transfers, count)


CHOICES = [
    precisions(1), precisions(6, seed=1), precisions(4, kinds=3, seed=2), stages(2), stages(7, seed=3),
    stages(5, count=3, seed=4), stages(4, count=4, seed=5),
]  # fmt: skip


def described(choice) -> str:
    return f"{choice.name} of {len(choice.layers)} layers in {choice.qubo().bits} bits"


def all_choices(choice):
    if isinstance(choice, PrecisionChoice):
        return list(itertools.product(range(len(choice.precisions)), repeat=len(choice.layers)))
    paths = itertools.product(range(choice.stages), repeat=len(choice.layers))
    return [path for path in paths if path[0] == 0 and list(path) == sorted(path)]


@pytest.mark.parametrize("choice", CHOICES, ids=described)
def test_dynamic_programming_finds_the_best_of_all_choices(choice) -> None:
    best = min(choice.cost(chosen) for chosen in all_choices(choice))

    found = exact.solve(choice)

    assert choice.cost(found.chosen) == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("choice", CHOICES, ids=described)
def test_bits_that_are_a_choice_cost_what_it_costs_and_others_more_than_the_best(choice) -> None:
    qubo = choice.qubo()
    energies = qubo.energies()
    best = choice.cost(exact.solve(choice).chosen)
    decoded = {state: choice.decoded(bits_of(state, qubo.bits)) for state in range(2**qubo.bits)}

    valid = {state: chosen for state, chosen in decoded.items() if chosen is not None}

    assert sorted(valid.values()) == sorted(all_choices(choice))
    assert all(energies[state] == pytest.approx(choice.cost(chosen)) for state, chosen in valid.items())
    assert all(energies[state] > best * (1 + 1e-6) for state in decoded.keys() - valid.keys())


def test_energies_of_all_states_and_of_spins_are_those_of_the_bits() -> None:
    qubo = Qubo((1.0, -2.0, 0.5), {(0, 1): 4.0, (1, 2): -1.5}, 0.25)
    fields, couplings = qubo.ising()

    states = [bits_of(state, 3) for state in range(8)]
    spins = [1 - 2 * np.array(bits) for bits in states]
    ising = [float(fields @ z) + sum(w * z[i] * z[j] for (i, j), w in couplings.items()) for z in spins]

    np.testing.assert_allclose(qubo.energies(), [qubo.energy(bits) for bits in states])
    assert np.ptp(qubo.energies() - np.array(ising)) < 1e-12


@pytest.mark.parametrize("choice", [precisions(8, seed=6), stages(9, seed=7)], ids=described)
def test_every_solver_finds_the_optimum_of_a_small_choice(choice) -> None:
    best = choice.cost(exact.solve(choice).chosen)

    answers = [annealing.solve(choice), qaoa.solve(choice), grover.solve(choice)]

    assert [choice.cost(one.chosen) == pytest.approx(best) for one in answers] == [True, True, True]


def test_qaoa_reads_the_optimum_more_often_than_guessing() -> None:
    found = qaoa.solve(precisions(8, seed=6))

    assert found.hits > 5 * found.chance * found.samples


def test_the_circuit_of_qaoa_turns_by_the_energies_and_mixes_every_bit() -> None:
    qubo = precisions(3, seed=1).qubo()
    energies, angles = qubo.energies(), np.array([0.7, 0.4, 1.1, 0.2])
    flip = np.array([[0, 1], [1, 0]])
    mixers = [np.cos(mixing) * np.eye(2) - 1j * np.sin(mixing) * flip for mixing in angles[1::2]]
    state = np.full(8, 8**-0.5, dtype=complex)
    for energy, one in zip(angles[::2], mixers, strict=True):
        state = np.kron(np.kron(one, one), one) @ (np.exp(-1j * energy * energies / energies.std()) * state)

    found = qaoa.Ansatz(qubo, energies, layers=2).probabilities(angles)

    np.testing.assert_allclose(found, np.abs(state) ** 2, atol=1e-12)


def test_annealing_finds_the_best_of_sixteen_million_choices() -> None:
    choice = precisions(24, seed=9)

    found = annealing.solve(choice)

    assert choice.cost(found.chosen) == pytest.approx(choice.cost(exact.solve(choice).chosen))


def test_annealing_is_the_same_for_the_same_seed() -> None:
    choice = precisions(12, seed=8)

    assert annealing.solve(choice, seed=3) == annealing.solve(choice, seed=3)


def test_circuits_beyond_the_limits_are_refused_with_the_numbers_and_the_exact_answer_stays() -> None:
    choice, limits = precisions(40), SimulationLimits()
    solvers = [
        Solver("dynamic programming", "EXACT", exact.solve),
        Solver("QAOA", "SIMULATED", lambda one: qaoa.solve(one, limits=limits)),
        Solver("Grover", "SIMULATED", lambda one: grover.solve(one, limits=limits)),
    ]

    found = compared(choice, solvers, iter(range(100)).__next__, "given")

    assert [answer.is_optimal for answer in found.answers] == [True, False, False]
    assert [answer.cost is None for answer in found.answers] == [False, True, True]
    assert "needs 40 qubits" in found.answers[1].found.note
    assert "the limits are 20 qubits" in found.answers[2].found.note
    assert found.used == "dynamic programming"
    assert [answer.seconds for answer in found.answers] == [1, 1, 1]


def test_grover_search_raises_the_marked_state_as_theory_says() -> None:
    from qiskit.quantum_info import Statevector

    marked = np.zeros(16, dtype=bool)
    marked[11] = True

    circuit = grover.search_circuit(marked, 4, rounds=3).remove_final_measurements(inplace=False)

    wanted = np.sin((2 * 3 + 1) * np.arcsin(0.25)) ** 2
    assert Statevector(circuit).probabilities()[11] == pytest.approx(wanted)


def test_stages_that_stay_empty_hand_on_what_passes_through_them() -> None:
    choice = StageChoice(("a", "b"), (1.0, 1.0), (0.25,), 2)

    assert choice.loads((0, 1)) == (1.25, 1.0)
    assert StageChoice(("a", "b", "c"), (1.0,) * 3, (0.25, 0.25), 3).loads((0, 2, 2)) == (1.25, 0.25, 2.0)
    assert choice.bottleneck((0, 1)) == 1.25
    assert choice.described((0, 1)) == "[a] [b]"


@pytest.mark.parametrize(
    "make",
    [
        lambda: PrecisionChoice(("a",), ("f32",), ((1.0,),), (((0.0,),),) * 2),
        lambda: PrecisionChoice(("a",), ("f32", "bf16"), ((1.0, -1.0),), (((0.0, 0.0),) * 2,) * 2),
        lambda: PrecisionChoice(("a",), ("f32", "bf16"), ((1.0, float("nan")),), (((0.0, 0.0),) * 2,) * 2),
        lambda: StageChoice(("a", "b"), (1.0, 1.0), (), 2),
        lambda: StageChoice(("a", "b"), (1.0, 1.0), (0.0,), 3),
        lambda: Qubo((1.0,), {(0, 1): 1.0}),
    ],
)
def test_times_that_cannot_be_are_refused(make) -> None:
    with pytest.raises(UsageError):
        make()
