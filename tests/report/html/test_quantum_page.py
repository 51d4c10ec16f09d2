"""What each figure of a quantum run's page shows, its first line, and that it reads back as it was written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import planted_quantum_run
import pytest

from vivace.core.errors import UsageError
from vivace.quantum.picture import Picture, PlacedGate
from vivace.report.pages import headline_of, page_of
from vivace.report.quantum_page import around, choices, circuits, layer, machines, words
from vivace.report.quantum_page.block import quantum_block
from vivace.report.quantum_page.document import QuantumDocument, headline, lasting
from vivace.report.quantum_page.page import render
from vivace.report.reading import read_quantum, read_run
from vivace.report.results import QUANTUM
from vivace.report.terminal import print_block


@pytest.fixture(scope="module")
def run() -> QuantumDocument:
    return planted_quantum_run.rich()


def test_the_first_line_says_how_much_slower_and_what_a_tie_would_ask_for(run: QuantumDocument) -> None:
    assert headline(run) == (
        "net, layer fc1: about 10^8 times slower than one CPU core: 2 minutes on ibm-torino (PREDICTED) against 2 us "
        "(MEASURED); to break even, it would need shots of 5 ps instead of 300 us, and gates that do not fail: 0.31 of "
        "its shots would be free of errors"
    )
    assert run.headline == headline(run)
    assert headline(planted_quantum_run.bare()).startswith("net, layer fc1: no verdict")


def test_every_figure_says_n_method_and_units_and_labels_its_numbers(run: QuantumDocument) -> None:
    figures = [layer.agreement(run), layer.circuits(run), machines.figure(run), *choices.figures(run, 4),
               *words.figures(run, 6)]  # fmt: skip

    assert all(one.drawings and one.said and one.counted and one.method and one.units and one.tables for one in figures)
    labelled = [re.findall("SIMULATED|PREDICTED|MEASURED", one.units) for one in figures]
    assert labelled == [
        ["SIMULATED"], ["SIMULATED"], ["PREDICTED", "MEASURED"], ["MEASURED", "MEASURED"], ["MEASURED", "MEASURED"],
        ["SIMULATED"], ["SIMULATED"],
    ]  # fmt: skip
    assert [one.number for one in figures] == list(range(1, 8))


def test_what_does_not_agree_is_said(run: QuantumDocument) -> None:
    said = layer.agreement(run).said

    assert "hadamard test on an ideal machine agrees" in said
    assert "under the noise of ibm-torino does NOT agree" in said
    assert "Noise leaves 0.6 of the signal" in said


def test_a_circuit_has_its_gates_and_says_what_is_left_out() -> None:
    drawn = circuits.circuit("c", "title", planted_quantum_run.PICTURE)

    assert drawn.count("<rect") == 3
    assert drawn.count("<circle") == 1
    assert "and 3 gates more" in drawn


def test_solvers_that_failed_and_were_refused_are_said(run: QuantumDocument) -> None:
    said = next(choices.figures(run, 4)).said

    assert "found by: dynamic programming" in said
    assert "Not by: QAOA" in said
    assert "Grover minimum finding: needs 40 qubits" in said


def test_the_terminal_says_why_a_solver_gave_no_answer(
    run: QuantumDocument, capsys: pytest.CaptureFixture[str]
) -> None:
    from vivace.cli.output import out_console

    print_block(out_console(), quantum_block(run))

    told = " ".join(capsys.readouterr().out.split())
    assert told.startswith("net, layer fc1: about 10^8 times slower")
    assert "Grover minimum finding: needs 40 qubits" in told
    assert "refused: the swap test was not simulated" in told


def test_no_page_claims_a_speed_up(run: QuantumDocument) -> None:
    assert "No speed-up is claimed anywhere" in render(run)
    assert any("Nothing ran on a quantum machine" in text for text in around.limits(run))


def test_a_document_reads_back_and_its_page_is_the_same(run: QuantumDocument, tmp_path: Path) -> None:
    (tmp_path / QUANTUM).write_text(run.to_text())

    again = read_run(tmp_path)

    assert again == run
    assert page_of(again) == render(run)
    assert headline_of(again) == headline(run)


def test_a_run_without_anything_is_drawn_too(capsys: pytest.CaptureFixture[str]) -> None:
    from vivace.cli.output import out_console

    page = render(planted_quantum_run.bare())
    print_block(out_console(), quantum_block(planted_quantum_run.bare()))

    assert "Nothing was simulated: too large." in page
    assert "no verdict" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 99},
        {"simulations": [1]},
        {"choices": [{"name": "x", "unit": "s", "layers": [], "bits": 1, "states": 2, "basis": "b", "answers": [],
                      "used": "x"}]},
        {"surplus": 1},
    ],
)  # fmt: skip
def test_a_file_that_was_damaged_is_refused(run: QuantumDocument, change: dict[str, object]) -> None:
    text = json.dumps({**json.loads(run.to_text()), **change})

    with pytest.raises(UsageError):
        read_quantum(text)


def test_gates_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be drawn"):
        PlacedGate("X", ())
    assert Picture((), ()).more == 0


def test_times_are_told_in_the_unit_that_suits_them() -> None:
    assert [lasting(seconds) for seconds in (1e-15, 5e-7, 90.0, 3e10)] == ["1 fs", "500 ns", "1.5 minutes", "951 years"]


def test_gates_that_were_scaled_from_a_smaller_circuit_are_said(run: QuantumDocument) -> None:
    scaled = run.model_copy(deep=True)
    assert "are scaled from a smaller circuit" not in render(scaled)
    for machine in scaled.estimate.machines:  # type: ignore[union-attr]
        if machine.circuit is not None:
            object.__setattr__(machine.circuit, "is_scaled", True)

    assert "gates and depth are scaled from a smaller circuit that was translated" in render(scaled)
