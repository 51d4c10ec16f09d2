"""The words: each demonstration holds on an ideal machine, and fails where it should."""

from __future__ import annotations

import math
from typing import Any

import pytest

from vivace.core.errors import UsageError
from vivace.quantum.machines import machine
from vivace.quantum.picture import PlacedGate, picture_of, text_of
from vivace.quantum.words import entanglement, parallel_oracle, superposition
from vivace.quantum.words.demonstration import Runner

qiskit = pytest.importorskip("qiskit", reason="circuits need qiskit: pip install 'vivace[quantum]'")
pytest.importorskip("qiskit_aer", reason="circuits need qiskit-aer: pip install 'vivace[quantum]'")

DEMONSTRATIONS = [
    superposition.superposition,
    parallel_oracle.parallel_oracle,
    entanglement.bell,
    entanglement.ghz,
    entanglement.chsh,
]


@pytest.mark.parametrize("show", DEMONSTRATIONS)
def test_a_word_holds_on_an_ideal_machine_and_its_interval_is_about_the_value_of_theory(show) -> None:
    found = show(Runner(seed=5))

    assert found.holds
    assert abs(found.value.value - found.expected) < 0.1
    assert sum(found.histograms[0].counts.values()) == found.shots
    assert found.text.strip()


def test_chsh_exceeds_two_under_the_noise_of_a_machine_by_less() -> None:
    ideal, noisy = entanglement.chsh(), entanglement.chsh(Runner(machine=machine("ibm-torino")))

    assert noisy.holds
    assert noisy.value.high < ideal.value.value
    assert abs(ideal.value.value - 2 * math.sqrt(2)) < 0.1


def test_separate_qubits_do_not_pass_for_entangled(monkeypatch: pytest.MonkeyPatch) -> None:
    def separate() -> Any:
        circuit = qiskit.QuantumCircuit(2, 2)
        circuit.h([0, 1])
        return circuit

    monkeypatch.setattr(entanglement, "bell_circuit", separate)

    assert not entanglement.bell().holds
    assert not entanglement.chsh().holds


def test_an_oracle_without_interference_gives_one_input_with_its_answer() -> None:
    found = parallel_oracle.parallel_oracle(secret="101")

    readings = found.histograms[1].counts
    assert len(readings) == 8
    assert all(int(bits[0]) == (int(bits[1]) + int(bits[3])) % 2 for bits in readings)
    with pytest.raises(UsageError, match="1 to 8 signs"):
        parallel_oracle.parallel_oracle(secret="000")


def test_the_superposition_is_even_and_the_coins_are_not_taken_back() -> None:
    found = superposition.superposition(Runner(shots=8000, seed=2))

    counts = found.histograms[0].counts
    statistic = sum((counts.get(f"{state:03b}", 0) - 1000) ** 2 / 1000 for state in range(8))
    assert statistic < 24.3  # chi-square of 7 degrees of freedom, 0.1%
    assert found.histograms[1].counts == {"000": 8000}


def test_a_picture_has_gates_in_columns_with_their_controls() -> None:
    circuit = qiskit.QuantumCircuit(3, 1)
    circuit.h(0)
    circuit.x(2)
    circuit.cx(0, 1)
    circuit.ry(0.5, 1)
    circuit.measure(1, 0)

    found = picture_of(circuit)

    assert found.columns[0] == (PlacedGate("H", (0,)), PlacedGate("X", (2,)))
    assert found.columns[1] == (PlacedGate("X", (0, 1), 1),)
    assert [gate.name for column in found.columns[2:] for gate in column] == ["RY 0.50", "M"]
    assert picture_of(circuit, most=2).more == 2
    assert "H" in text_of(circuit)
