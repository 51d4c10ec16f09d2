"""Resources: shots, gates, wall time, physical qubits against the published estimator, break-even."""

from __future__ import annotations

import dataclasses
import math

import pytest

from vivace.core.errors import UsageError
from vivace.quantum.machines import machine, machines, physical_qubits
from vivace.quantum.resources.break_even import layer_estimate, verdict
from vivace.quantum.resources.fault_tolerance import fault_tolerant, patch_error
from vivace.quantum.resources.logical import (
    LogicalCounts,
    Work,
    amplitude_estimation_counts,
    evaluations_for,
    hadamard_test_counts,
    shots_for,
)
from vivace.quantum.resources.machine_time import LARGEST, machine_estimate, product_circuit

pytest.importorskip("qiskit", reason="circuits need qiskit: pip install 'vivace[quantum]'")
pytest.importorskip("qiskit_aer", reason="circuits need qiskit-aer: pip install 'vivace[quantum]'")

E3, E4 = physical_qubits()


# What Microsoft's resource estimator (qsharp 1.31.0, run locally) gave for the same counts at an error budget of 0.01.
@pytest.mark.parametrize(
    ("qubit", "logical", "t_gates", "physical", "seconds"),
    [
        (E3, 50, 10**6, 322_000, 6.8),
        (E4, 50, 10**6, 41_000, 3.6),
        (E3, 200, 10**10, 1_180_000, 30 * 3600),
        (E4, 200, 10**10, 257_000, 14.4 * 3600),
    ],
)
def test_physical_qubits_and_time_are_those_of_the_published_estimator(qubit, logical, t_gates, physical, seconds):
    counts = LogicalCounts(logical, 0, 0, 0, t_gates=t_gates, readings=0)

    found = fault_tolerant(counts, qubit)

    assert found.physical_qubits == pytest.approx(physical, rel=0.005)
    assert found.seconds == pytest.approx(seconds, rel=0.01)


def test_the_run_keeps_within_its_budget_of_failure() -> None:
    counts = amplitude_estimation_counts(64, 1 / 256)

    found = fault_tolerant(counts, E3, budget=0.01)

    assert found.factory is not None
    assert found.patches * found.depth * patch_error(E3, found.distance) <= 0.01 / 3
    assert found.t_states * found.factory.error <= 0.01 / 3
    assert counts.rotations * 2 ** (-(found.t_per_rotation - 5.3) / 0.53) <= 0.01 / 3


def test_what_no_code_can_hold_is_refused() -> None:
    with pytest.raises(UsageError, match="distance 51"):
        fault_tolerant(LogicalCounts(50, 0, 0, 0, t_gates=10**40), dataclasses.replace(E3, error=5e-3))
    with pytest.raises(UsageError, match="budget"):
        fault_tolerant(LogicalCounts(50, 0, 0, 0, t_gates=10), E3, budget=0.0)


def test_shots_grow_with_the_square_of_the_precision_and_amplitude_estimation_with_the_precision() -> None:
    assert shots_for(1 / 256) == 65_536
    assert shots_for(1 / 512) == 4 * shots_for(1 / 256)
    assert evaluations_for(1 / 512) == pytest.approx(2 * evaluations_for(1 / 256), rel=0.01)
    with pytest.raises(UsageError, match="above 0 and below 1"):
        shots_for(0.0)


def test_every_machine_has_its_source_and_a_date() -> None:
    assert len(machines()) >= 7
    assert all(one.source and one.date >= "2025-01-01" for one in machines().values())
    assert all(max(map(max, one.pairs)) < one.qubits for one in machines().values() if one.pairs)
    with pytest.raises(UsageError, match="did you mean 'ibm-torino'"):
        machine("ibm-torno")


# Medians that a separate reading of the same snapshots gave, rounded to two figures.
@pytest.mark.parametrize(
    ("name", "two_qubit_error", "two_qubit_ns", "readout_error", "t1_us"),
    [
        ("ibm-torino", 4.2e-3, 68, 2.3e-2, 185),
        ("ibm-fez", 3.9e-3, 84, 7.6e-3, 145),
        ("ibm-marrakesh", 3.3e-3, 68, 9.5e-3, 197),
        ("ibm-kingston", 1.8e-3, 68, 9.5e-3, 283),
        ("ibm-aachen", 1.5e-3, 68, 7.4e-3, 232),
        ("ibm-sherbrooke", 7.8e-3, 533, 2.0e-2, 278),
    ],
)
def test_the_calibration_file_holds_the_medians(name, two_qubit_error, two_qubit_ns, readout_error, t1_us) -> None:
    found = machine(name)

    assert found.two_qubit_error == pytest.approx(two_qubit_error, rel=0.03)
    assert found.two_qubit_seconds == pytest.approx(two_qubit_ns * 1e-9, rel=0.01)
    assert found.readout_error == pytest.approx(readout_error, rel=0.03)
    assert found.t1_seconds == pytest.approx(t1_us * 1e-6, rel=0.01)


def test_a_shot_lasts_at_least_its_two_qubit_gates_its_reading_and_the_delay() -> None:
    torino = machine("ibm-torino")

    found = product_circuit(16, torino)

    assert found.counts.two_qubit >= hadamard_test_counts(16).two_qubit
    assert found.shot_seconds is not None
    assert found.shot_seconds > torino.between_shots_seconds + torino.readout_seconds + 20 * torino.two_qubit_seconds
    assert found.error_free < (1 - torino.two_qubit_error) ** hadamard_test_counts(16).two_qubit


def test_circuits_beyond_the_largest_are_scaled_and_say_so() -> None:
    helios = machine("quantinuum-helios")

    small, large = product_circuit(LARGEST, helios), product_circuit(4 * LARGEST, helios)

    assert (small.is_scaled, large.is_scaled) == (False, True)
    assert large.counts.two_qubit == 4 * small.counts.two_qubit
    assert large.shot_seconds is None


def test_a_machine_with_too_few_qubits_says_so() -> None:
    small = dataclasses.replace(machine("ibm-torino"), qubits=3)

    found = machine_estimate(Work("fc", 10, 64), small, 0.1)

    assert (found.circuit, found.seconds) == (None, None)
    assert found.reason == "it has 3 qubits, and 7 are needed"


def test_the_verdict_is_the_ratio_of_the_times_and_the_shot_that_would_tie() -> None:
    work = Work("fc", 1000, 16)
    estimate = layer_estimate(work, [machine("ibm-torino"), machine("quantinuum-helios")], [E3], 0.01, 1e-5, {})

    found = verdict([estimate])

    assert found is not None
    assert found.machine == "ibm-torino"
    assert found.slower == pytest.approx(found.quantum_seconds / 1e-5)
    rounds = math.ceil(1000 / (133 // 5))
    assert found.quantum_seconds == pytest.approx(rounds * 10_000 * found.shot_seconds)
    assert rounds * 10_000 * found.needed_shot_seconds == pytest.approx(1e-5)
    assert verdict([dataclasses.replace(estimate, classical_seconds=None)]) is None


def test_no_size_of_layer_breaks_even_because_every_shot_loads_it_again() -> None:
    sizes = [2**power for power in range(1, 24)]

    rotations = [hadamard_test_counts(size).rotations for size in sizes]

    assert all(turns >= size for turns, size in zip(rotations, sizes, strict=True))
