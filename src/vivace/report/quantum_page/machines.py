"""Figure 3: what the layer would take on machines that exist and on ones that nobody has built, beside this one."""

from __future__ import annotations

from markupsafe import Markup

from vivace.quantum.resources.break_even import LayerEstimate
from vivace.report.html import chart, svg
from vivace.report.html.figure import Cell, Figure, Table, absent, table
from vivace.report.html.scale import logarithmic
from vivace.report.html.words import number, plural
from vivace.report.quantum_page.document import QuantumDocument, lasting

NUMBER, KEY, TITLE = 3, "machines", "What the layer would take, beside this processor"
LABELS, RIGHT = 178.0, 468.0


def figure(document: QuantumDocument) -> Figure:
    """Times on a logarithmic axis, and a table of gates, shots and qubits."""
    found = document.estimate
    if found is None:
        return absent(NUMBER, KEY, TITLE, "Nothing was predicted.")
    return Figure(
        NUMBER, KEY, TITLE, _said(document), (_bars(document),),
        f"{found.work.products:,} inner products of {found.work.elements} numbers in one call",
        "machines: the Hadamard test translated by qiskit, times of its longest path, the delay between two shots, and "
        "as many circuits side by side as qubits allow without gaps; error-corrected: surface code and T factories by "
        "arXiv:2211.07629, one product after the other; classical: the median of the layer alone on one thread",
        "PREDICTED for quantum machines, MEASURED for this processor; seconds for one call of the layer",
        (_machines(document), _corrected(document), _layers(document)),
    )  # fmt: skip


def _said(document: QuantumDocument) -> str:
    found, won = document.estimate, document.verdict
    assert found is not None
    logical = found.logical
    told = (
        f"One inner product takes {logical.qubits} qubits, {logical.rotations:,} turns and {logical.two_qubit:,} "
        f"two-qubit gates in every shot, because every shot loads all {found.work.elements} numbers again: that is "
        f"more work than the {found.work.elements} multiplications that a processor does once, so no size of layer "
        "breaks even."
    )
    if won is None:
        return told
    return (
        f"{told} The fastest machine of the catalogue, {won.machine}, would take {lasting(won.quantum_seconds)}; to "
        f"tie, a shot would have to take {lasting(won.needed_shot_seconds)}, not {lasting(won.shot_seconds)}."
    )


def _bars(document: QuantumDocument) -> Markup:
    """One point a machine: seconds span more powers of ten than bars could show."""
    found = document.estimate
    assert found is not None
    rows = [(one.machine, one.seconds, "original") for one in found.machines if one.seconds is not None]
    rows += [(f"{one.run.qubit}, {one.method}", one.seconds, "original") for one in found.corrected]
    if found.classical_seconds is not None:
        rows.append(("this processor, one core", found.classical_seconds, "winner"))
    bottom = 24.0 + 17 * len(rows)
    scale = logarithmic([seconds for _, seconds, _ in rows], LABELS + 8, RIGHT - 60)
    drawn = [
        svg.hover(
            f"{label}: {lasting(seconds)}",
            svg.text(LABELS, 34 + 17 * place, label, "label", "end"),
            svg.marker("diamond" if class_ == "winner" else "circle", scale.at(seconds), 30 + 17 * place, class_),
            svg.text(scale.at(seconds) + 8, 34 + 17 * place, lasting(seconds), "value"),
        )
        for place, (label, seconds, class_) in enumerate(rows)
    ]
    told = "; ".join(f"{label}: {lasting(seconds)}" for label, seconds, _ in rows)
    words = "seconds a call (quantum PREDICTED, here MEASURED)"
    return svg.drawing(
        KEY, TITLE, told, chart.WIDTH, bottom + 36, chart.rules(scale, bottom, words, 4, is_ratio=False), *drawn
    )


def _machines(document: QuantumDocument) -> Table:
    found = document.estimate
    assert found is not None
    rows: list[tuple[str | Cell, ...]] = []
    for one in found.machines:
        if one.circuit is None:
            rows.append((one.machine, one.reason, "-", "-", "-", "-", "-", "-"))
            continue
        counts, free = one.circuit.counts, one.circuit.error_free
        rows.append((
            one.machine, Cell(str(counts.qubits), counts.qubits), Cell(f"{counts.two_qubit:,}", counts.two_qubit),
            Cell(f"{counts.depth:,}", counts.depth), Cell(number(free), free), Cell(f"{one.shots:,}", one.shots),
            Cell(lasting(one.circuit.shot_seconds), one.circuit.shot_seconds), Cell(lasting(one.seconds), one.seconds),
        ))  # fmt: skip
    columns = ("machine", "qubits", "two-qubit gates", "depth", "shots without an error", "shots a product", "a shot",
               "the layer")  # fmt: skip
    told = f"PREDICTED, at a standard error of {number(found.error)} of both norms"
    if any(one.circuit is not None and one.circuit.is_scaled for one in found.machines):
        told += "; gates and depth are scaled from a smaller circuit that was translated, as they grow with the numbers"
    return table(columns, rows, told)


def _corrected(document: QuantumDocument) -> Table:
    found = document.estimate
    assert found is not None
    rows = [
        (
            one.run.qubit, one.method, Cell(f"{one.loads:,}", one.loads),
            Cell(f"{one.run.physical_qubits:,}", one.run.physical_qubits),
            Cell(str(one.run.distance), one.run.distance),
            Cell(f"{one.run.t_states:,}", one.run.t_states), Cell(str(one.run.factories), one.run.factories),
            Cell(lasting(one.run.seconds), one.run.seconds), Cell(lasting(one.seconds), one.seconds),
        )
        for one in found.corrected
    ]  # fmt: skip
    columns = ("physical qubit", "method", "loads a product", "physical qubits", "code distance", "T states a run",
               "T factories", "a run", "the layer")  # fmt: skip
    return table(columns, rows, "PREDICTED for machines with error correction, which nobody has built")


def _layers(document: QuantumDocument) -> Table:
    rows: list[tuple[str | Cell, ...]] = []
    for one in document.estimates:
        best = min((part for part in one.machines if part.seconds is not None), key=_seconds, default=None)
        seconds = None if best is None else best.seconds
        rows.append((
            one.work.layer, Cell(f"{one.work.products:,}", one.work.products),
            Cell(f"{one.work.elements:,}", one.work.elements), Cell(str(one.logical.qubits), one.logical.qubits),
            Cell(f"{one.logical.two_qubit:,}", one.logical.two_qubit), _t_states(one),
            "-" if best is None else best.machine,
            Cell(lasting(seconds), seconds), Cell(lasting(one.classical_seconds), one.classical_seconds),
        ))  # fmt: skip
    if document.model_verdict is not None:
        won, products = document.model_verdict, sum(one.work.products for one in document.estimates)
        rows.append((
            "all together", Cell(f"{products:,}", products), "-", "-", "-", "-", won.machine,
            Cell(lasting(won.quantum_seconds), won.quantum_seconds),
            Cell(lasting(won.classical_seconds), won.classical_seconds),
        ))  # fmt: skip
    columns = ("layer", "inner products", "of elements", "qubits", "two-qubit gates", "T states a run",
               "fastest machine", "there (PREDICTED)", "here (MEASURED)")  # fmt: skip
    return table(columns, rows, f"every linear layer of the model: {plural(len(document.estimates), 'layer')}")


def _t_states(layer: LayerEstimate) -> Cell:
    """T states of one run of the Hadamard test, on the first error-corrected machine."""
    if not layer.corrected:
        return Cell("-")
    states = layer.corrected[0].run.t_states
    return Cell(f"{states:,}", states)


def _seconds(part: object) -> float:
    return float(getattr(part, "seconds", None) or 0.0)
