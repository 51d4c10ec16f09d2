"""Amplitude encoding: the state is the vector, the count of gates is the closed form."""

from __future__ import annotations

import numpy as np
import pytest

from vivace.core.errors import UsageError
from vivace.quantum.layers.overlap import OverlapTest, hadamard_test, swap_test
from vivace.quantum.layers.preparation import append_state, padded, qubits_for
from vivace.quantum.resources.logical import hadamard_test_counts

qiskit = pytest.importorskip("qiskit", reason="circuits need qiskit: pip install 'vivace[quantum]'")
pytest.importorskip("qiskit_aer", reason="circuits need qiskit-aer: pip install 'vivace[quantum]'")


def unit(size: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal(size)
    return values / np.linalg.norm(values)


@pytest.mark.parametrize("size", [2, 4, 8, 64])
def test_the_prepared_state_is_the_vector_with_its_signs(size: int) -> None:
    wanted = unit(size, seed=size)
    circuit = qiskit.QuantumCircuit(qubits_for(size))

    append_state(circuit, wanted)

    np.testing.assert_allclose(qiskit.quantum_info.Statevector(circuit).data, wanted, atol=1e-12)


def test_a_vector_with_zeros_and_one_of_a_single_entry_are_prepared() -> None:
    wanted = np.array([0.0, 0.0, 0.0, -1.0])
    circuit = qiskit.QuantumCircuit(2)

    append_state(circuit, wanted)

    np.testing.assert_allclose(qiskit.quantum_info.Statevector(circuit).data, wanted, atol=1e-12)


def test_numbers_are_padded_to_a_power_of_two_and_others_refused() -> None:
    assert padded([1.0] * 5).tolist() == [1.0] * 5 + [0.0] * 3
    with pytest.raises(UsageError, match="finite numbers"):
        padded([1.0, float("nan")])
    with pytest.raises(UsageError, match="0 numbers"):
        padded([])


@pytest.mark.parametrize("size", [2, 16, 64])
def test_the_hadamard_test_has_the_gates_of_its_closed_form(size: int) -> None:
    expected = hadamard_test_counts(size)

    gates = hadamard_test(unit(size, 1), unit(size, 2)).count_ops()

    assert (gates["ry"], gates["cx"]) == (expected.rotations, expected.two_qubit)
    assert hadamard_test(unit(size, 1), unit(size, 2)).num_qubits == expected.qubits


@pytest.mark.parametrize("size", [2, 8, 64])
def test_the_tests_read_zero_with_the_probabilities_of_theory(size: int) -> None:
    one, other = unit(size, 3), unit(size, 4)
    overlap = float(one @ other)
    last = {test: test.qubits(size) - 1 for test in OverlapTest}

    hadamard, swap = (make(one, other).remove_final_measurements(inplace=False) for make in (hadamard_test, swap_test))

    zero = qiskit.quantum_info.Statevector(hadamard).probabilities([last[OverlapTest.HADAMARD]])[0]
    assert zero == pytest.approx((1 + overlap) / 2, abs=1e-12)
    zero = qiskit.quantum_info.Statevector(swap).probabilities([last[OverlapTest.SWAP]])[0]
    assert zero == pytest.approx((1 + overlap**2) / 2, abs=1e-12)
