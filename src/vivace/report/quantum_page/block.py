"""The block of a quantum run on a terminal: the verdict first, then what it rests on."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from vivace.quantum.choices.answer import Comparison
from vivace.quantum.layers.estimate import Simulation
from vivace.report.html.words import number, plural
from vivace.report.layout import line, plain_table
from vivace.report.quantum_page.document import QuantumDocument, headline, lasting, model_line
from vivace.report.results import PAGE, QUANTUM


def quantum_block(document: QuantumDocument) -> RenderableType:
    """The verdict, the simulated layer, machines, choices and words; under 60 lines."""
    return Group(
        Text(headline(document), "bold"),
        *([line(model_line(document))] if document.model_verdict else []),
        *([_simulated(document)] if document.simulations else []),
        *_predicted(document),
        *(part for found in document.choices for part in _choice(found)),
        _words(document),
        *(line(f"refused: {reason}") for reason in document.refused),
        *(line(f"note: {note}") for note in document.notes[:3]),
        *([line(f"kept in {document.out}: {QUANTUM}, {PAGE}")] if document.out else []),
    )


def _simulated(document: QuantumDocument) -> RenderableType:
    table = plain_table("SIMULATED", "noise of", "qubits", "2q gates", "agree", "in 95%", "signal")
    for run, kept in zip(document.simulations, document.kept_signal, strict=True):
        table.add_row(
            f"{run.test.value} test", run.machine or "none", str(run.circuit.qubits), str(run.circuit.two_qubit),
            agreement(run), f"{run.held} of {len(run.slices)}", number(kept),
        )  # fmt: skip
    return table


def agreement(run: Simulation) -> str:
    """Whether all slices agree with the classical values within their shot noise."""
    return "yes" if run.agrees else "NO"


def _predicted(document: QuantumDocument) -> Iterator[RenderableType]:
    found = document.estimate
    if found is None:
        return
    shots = "".join(f" ({one.shots:,} shots)" for one in found.machines[:1])
    yield line(
        f"{plural(found.work.products, 'inner product')} of {plural(found.work.elements, 'number')}, each to a "
        f"standard error of {number(found.error)} of both norms{shots}; classically {lasting(found.classical_seconds)} "
        "on one thread (MEASURED)"
    )
    table = plain_table("PREDICTED", "qubits", "2q gates", "depth", "at once", "no error", "layer")
    for one in found.machines:
        if one.circuit is None:
            table.add_row(one.machine, one.reason)
            continue
        counts = one.circuit.counts
        table.add_row(
            one.machine, str(counts.qubits), f"{counts.two_qubit:,}", f"{counts.depth:,}",
            str(one.copies), f"{one.circuit.error_free:.2g}", lasting(one.seconds),
        )  # fmt: skip
    yield table
    table = plain_table("PREDICTED, corrected", "qubits", "T states", "distance", "a run", "layer")
    for each in found.corrected:
        name = f"{each.run.qubit}, {each.method.removesuffix(' estimation')}"
        table.add_row(
            name, f"{each.run.physical_qubits:,}", f"{each.run.t_states:,}",
            str(each.run.distance), lasting(each.run.seconds), lasting(each.seconds),
        )  # fmt: skip
    yield table


def _choice(found: Comparison) -> Iterator[RenderableType]:
    yield line(f"{found.name}, times {found.basis}: {len(found.layers)} layers, {found.bits} bits{_noted(found.note)}")
    table = plain_table("solver", "answer", f"cost, {found.unit}", "best", "evaluations", "took here")
    for answer in found.answers:
        cost = "-" if answer.cost is None else f"{answer.cost:.3g}"
        table.add_row(
            answer.solver, answer.basis, cost, "-" if answer.cost is None else "yes" if answer.is_optimal else "no",
            f"{answer.found.evaluations:,} {answer.found.counted}", lasting(answer.seconds),
        )  # fmt: skip
    yield table
    yield from (line(f"{one.solver}: {one.found.note}") for one in found.answers if one.cost is None)


def _noted(note: str) -> str:
    return f" ({note})" if note else ""


def _words(document: QuantumDocument) -> RenderableType:
    table = plain_table("SIMULATED", "statistic [95%]", "bound", "holds", "noise of")
    for word in document.words:
        value = f"{number(word.value.value)} [{number(word.value.low)}, {number(word.value.high)}]"
        table.add_row(word.key, value, f"> {number(word.bound)}", "yes" if word.holds else "NO", word.machine or "none")
    return table
