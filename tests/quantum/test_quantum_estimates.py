"""A layer's outputs from circuits: slices, signs, bias, agreement, noise."""

from __future__ import annotations

import numpy as np
import pytest

from vivace.core.errors import UsageError
from vivace.core.measurement import Interval
from vivace.quantum.intervals import holds
from vivace.quantum.layers.estimate import Row, kept_signal, simulated
from vivace.quantum.layers.overlap import OverlapTest, overlap
from vivace.quantum.limits import SimulationLimits
from vivace.quantum.machines import machine

pytest.importorskip("qiskit", reason="circuits need qiskit: pip install 'vivace[quantum]'")
pytest.importorskip("qiskit_aer", reason="circuits need qiskit-aer: pip install 'vivace[quantum]'")


def row(elements: int, seed: int = 0, sign: float = 1.0, bias: float = 0.0) -> Row:
    weights, inputs = np.random.default_rng(seed).standard_normal((2, elements))
    return Row((seed, 0), weights, sign * (weights + 0.3 * inputs), bias)


def test_an_output_of_several_slices_agrees_with_the_layer_and_has_its_bias() -> None:
    wanted = row(150, bias=2.5)

    found = simulated([wanted], elements=64)

    assert [one.elements for one in found.slices] == [64, 64, 22]
    assert found.agrees
    assert found.outputs[0].exact == pytest.approx(float(wanted.weights @ wanted.inputs) + 2.5)
    assert holds(found.outputs[0].estimate, found.outputs[0].exact)


def test_the_hadamard_test_recovers_a_negative_sign_and_the_swap_test_loses_it() -> None:
    negative = row(16, sign=-1.0)

    signed, unsigned = simulated([negative]), simulated([negative], OverlapTest.SWAP)

    assert signed.slices[0].estimate.high < 0
    assert unsigned.slices[0].estimate.low > 0
    assert unsigned.outputs == ()
    assert unsigned.agrees


def test_the_same_seed_gives_the_same_counts_and_another_seed_others() -> None:
    one, again, *others = (simulated([row(8)], seed=seed, shots=1000) for seed in (1, 1, 2, 3, 4))

    assert one.slices == again.slices
    assert len({found.slices[0].zeros for found in others}) > 1


def test_a_circuit_that_computes_something_else_does_not_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    from vivace.quantum.layers import estimate

    real = estimate.circuit_of
    monkeypatch.setattr(estimate, "circuit_of", lambda test, one, other: real(test, one, -other))

    assert not simulated([row(16)]).agrees


def test_noise_of_a_machine_shrinks_the_overlap_and_uses_its_gates() -> None:
    found = simulated([row(16)], machine=machine("ibm-torino"))

    assert found.machine == "ibm-torino"
    assert found.circuit.two_qubit > found.gates.two_qubit
    assert 0.0 < kept_signal(found) < 0.95
    assert not found.agrees


def test_slices_of_zeros_need_no_circuit() -> None:
    weights = np.concatenate([np.ones(4), np.zeros(4)])

    found = simulated([Row((0, 0), weights, np.ones(8))], elements=4)

    assert found.slices[1].estimate == Interval(0.0, 0.0, 0.0)
    assert found.slices[1].shots == 0


def test_what_cannot_be_simulated_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(UsageError, match="1 to 64"):
        simulated([row(128)], elements=65)
    with pytest.raises(UsageError, match="nothing to simulate"):
        simulated([Row((0, 0), np.zeros(4), np.ones(4))])
    with pytest.raises(UsageError, match=r"7 qubits.*the limits are 3 qubits"):
        simulated([row(64)], limits=SimulationLimits(qubits=3))


def test_an_overlap_is_carried_from_the_share_of_zeros() -> None:
    assert overlap(OverlapTest.HADAMARD, 1000, 1000).high == 1.0
    assert overlap(OverlapTest.SWAP, 400, 1000).value == 0.0
