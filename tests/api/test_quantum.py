"""`vv.quantum`: a real model by the public door; what cannot be used is refused before anything runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import vivace as vv
from vivace.api.quantum import choices
from vivace.core.errors import MissingExtra, UsageError
from vivace.quantum.choices import exact
from vivace.quantum.limits import SimulationLimits

pytest.importorskip("qiskit", reason="circuits need qiskit: pip install 'vivace[quantum]'")
pytest.importorskip("qiskit_aer", reason="circuits need qiskit-aer: pip install 'vivace[quantum]'")

TIMES: dict[str, Any] = {
    "layers": ["a", "b", "c"],
    "precisions": ["f32", "bf16"],
    "seconds": [[3.0, 1.0], [1.0, 1.1], [3.0, 1.0]],
    "switch_seconds": [[[0, 0.2], [0.2, 0]]] * 4,
}


def work() -> vv.Workload:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 3))
    return vv.Workload(model.eval(), inputs=(torch.randn(4, 20),), name="mlp")


def test_a_model_is_read_simulated_predicted_solved_and_shown(tmp_path: Path) -> None:
    found = vv.quantum(work(), shots=512, outputs=2, error=0.05, out=tmp_path / "run")

    assert found.layer == "0"
    assert [run.test.value for run in found.simulations] == ["hadamard", "swap", "hadamard", "swap"]
    assert all(run.agrees for run in found.simulations if not run.machine)
    assert found.refused == ()
    assert [kept is None for kept in found.kept_signal] == [True, True, False, True]
    assert found.verdict is not None
    assert found.model_verdict is not None
    assert found.verdict.slower > 100
    assert found.model_verdict.quantum_seconds > found.verdict.quantum_seconds
    assert [choice.answers[0].is_optimal for choice in found.choices] == [True, True]
    assert all(choice.used == "dynamic programming" for choice in found.choices)
    assert [word.key for word in found.words] == ["superposition", "oracle", "bell", "ghz", "chsh", "chsh"]
    assert all(word.holds for word in found.words)
    document = json.loads((tmp_path / "run" / "quantum.json").read_text())
    assert document["verdict"]["slower"] == pytest.approx(found.verdict.slower)
    assert document["headline"].startswith("mlp, layer 0: about ")
    assert (tmp_path / "run" / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_layers_are_chosen_by_name_and_pattern_and_unknown_ones_refused() -> None:
    from vivace.api.quantum.reading import read_model

    model = read_model(work())

    assert model.layer(None).label == "0"
    assert model.layer("2").label == "2"
    with pytest.raises(UsageError, match="no linear layer answers to; give one of 0, 2"):
        model.layer("head")
    with pytest.raises(UsageError, match="2 linear layers answer to"):
        model.layer("*")


def test_a_model_without_linear_layers_is_refused() -> None:
    with pytest.raises(UsageError, match="no linear layer"):
        vv.quantum(vv.Workload(nn.ReLU(), inputs=(torch.randn(2, 3),)))


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"error": 2.0}, "above 0 and below 1"),
        ({"machine": "ibm-nowhere"}, "unknown quantum machine"),
        ({"outputs": 0}, "whole number of 1 or more"),
        ({"stages": 1}, "whole number of 2 or more"),
        ({"times": {"layers": []}}, "exactly the keys"),
    ],
)
def test_what_cannot_be_used_is_refused_before_the_model_is_read(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        vv.quantum("no/such/file.py:work", **asked)


def test_a_missing_package_is_told_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qiskit_aer", None)

    with pytest.raises(MissingExtra, match=r"qiskit-aer, which is not installed; install it with: pip install"):
        vv.quantum("no/such/file.py:work")


def test_a_folder_of_another_run_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")

    with pytest.raises(UsageError, match=r"holds the manifest.json of another run"):
        vv.quantum(work(), out=tmp_path)
    with pytest.raises(UsageError, match="which is a file"):
        vv.quantum(work(), out=tmp_path / "manifest.json")


def test_given_times_are_read_from_a_file_and_solved(tmp_path: Path) -> None:
    (tmp_path / "times.json").write_text(json.dumps(TIMES))

    choice = choices.given(tmp_path / "times.json")

    assert exact.solve(choice).chosen == (1, 1, 1)
    assert choice == choices.given(TIMES)


@pytest.mark.parametrize(
    "text",
    ["", "[1]", "{", "[" * 100_000, '{"layers": 1, "precisions": ["a","b"], "seconds": [], "switch_seconds": []}',
     json.dumps({**TIMES, "seconds": [[1, "x"]] * 3}), json.dumps({**TIMES, "seconds": [[1, float("inf")]] * 3}),
     json.dumps({**TIMES, "seconds": [[1, -1]] * 3}), json.dumps({**TIMES, "layers": ["a", "b", ""]})],
)  # fmt: skip
def test_a_file_of_times_that_cannot_be_read_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "times.json").write_text(text)

    with pytest.raises(UsageError):
        choices.given(tmp_path / "times.json")


def test_many_layers_are_chosen_in_blocks_that_keep_the_time() -> None:
    layers, kinds = 25, 2
    choice = choices.given({
        "layers": [f"l{i}" for i in range(layers)], "precisions": ["f32", "bf16"],
        "seconds": [[1.0 + i, 2.0] for i in range(layers)],
        "switch_seconds": [[[0.0, float(i)], [float(i), 0.0]] for i in range(layers + 1)],
    })  # fmt: skip

    blocks, note = choices.in_blocks(choice, 10)

    assert len(blocks.layers) == 10
    assert blocks.layers[0] == "l0..l1"
    assert [sum(row[kind] for row in blocks.seconds) for kind in range(kinds)] == [25 + 300.0, 50.0]
    assert [place[0][1] for place in blocks.switch_seconds] == [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25]
    assert "25 layers in 10 blocks" in note
    assert choices.in_blocks(blocks, 10) == (blocks, "")


def test_what_is_beyond_the_limits_is_told_and_the_rest_goes_on() -> None:
    found = vv.quantum(work(), shots=64, outputs=1, error=0.1, limits=SimulationLimits(qubits=4))

    assert found.simulations == ()
    assert [word.key for word in found.words] == ["superposition", "bell", "ghz", "chsh", "chsh"]
    assert [reason.partition(" was not")[0] for reason in found.refused] == [
        "the hadamard test", "the swap test", "the hadamard test under the noise of ibm-aachen",
        "the swap test under the noise of ibm-aachen", "the oracle",
    ]  # fmt: skip
    assert "needs 11 qubits" in found.refused[1]
    assert found.verdict is not None
