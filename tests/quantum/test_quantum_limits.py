"""Limits: what a simulation would take is told before it runs, and refused with the numbers."""

from __future__ import annotations

import pytest

from vivace.core.errors import MissingExtra, UsageError
from vivace.quantum import extra, simulator
from vivace.quantum.limits import Demand, SimulationLimits, check, demand, mixed_demand, trajectories_demand
from vivace.quantum.machines import machine

qiskit = pytest.importorskip("qiskit", reason="circuits need qiskit: pip install 'vivace[quantum]'")
pytest.importorskip("qiskit_aer", reason="circuits need qiskit-aer: pip install 'vivace[quantum]'")


def test_more_than_twenty_qubits_are_refused_by_default() -> None:
    circuit = qiskit.QuantumCircuit(21, 1)
    circuit.h(range(21))
    circuit.measure(0, 0)

    with pytest.raises(UsageError, match=r"needs 21 qubits, 67.1 MB|needs 21 qubits, 0.0671 GB.*limits are 20 qubits"):
        simulator.sampled([simulator.translated(circuit, None)])


def test_time_and_memory_are_refused_too_and_may_be_raised() -> None:
    large = demand("a search", 18, gates=10**6)

    assert "about 1.05e+03 s" in large.refusal(SimulationLimits())
    assert large.refusal(SimulationLimits(seconds=2000)) == ""
    assert "GB" in Demand("a state", 5, 5e9, 1.0).refusal(SimulationLimits())
    with pytest.raises(UsageError, match="--max-seconds"):
        check(large)


def test_a_density_matrix_takes_the_square_of_the_memory() -> None:
    assert mixed_demand("it", 8, 1).memory_bytes == 2**8 * demand("it", 8, 1).memory_bytes


def test_noise_in_every_shot_takes_a_run_a_shot() -> None:
    one, many = (trajectories_demand("it", 12, 100, shots) for shots in (1, 1000))

    assert many.memory_bytes == one.memory_bytes
    assert many.seconds > 100 * one.seconds / 2


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), True, "20"])
def test_a_limit_that_is_none_is_refused(wrong) -> None:
    with pytest.raises(UsageError, match="allowed is a number above zero"):
        SimulationLimits(qubits=wrong)


def test_a_missing_package_is_told_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extra, "PACKAGES", ("qiskit_that_is_not_there",))

    with pytest.raises(MissingExtra, match=r"not installed; install it with: pip install 'vivace\[quantum\]'"):
        extra.require()


@pytest.mark.parametrize("name", ["ibm-torino", "ibm-sherbrooke", "quantinuum-helios"])
def test_a_translated_circuit_uses_the_machine_s_gates_and_pairs_alone(name: str) -> None:
    circuit = qiskit.QuantumCircuit(4, 1)
    circuit.h(0)
    for other in (1, 2, 3):
        circuit.cx(0, other)
    circuit.measure(0, 0)
    wanted = machine(name)

    found = simulator.translated(circuit, wanted)

    assert set(found.count_ops()) <= {*wanted.basis, "measure"}
    pairs = {
        tuple(sorted(found.find_bit(q).index for q in step.qubits)) for step in found.data if len(step.qubits) == 2
    }
    assert not wanted.pairs or pairs <= set(wanted.pairs)
