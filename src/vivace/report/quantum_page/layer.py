"""Figures of the simulated layer: estimates beside classical values, and the circuits."""

from __future__ import annotations

from markupsafe import Markup

from vivace.quantum.layers.estimate import FALSE_ALARM, Simulation
from vivace.quantum.layers.overlap import OverlapTest
from vivace.report.html import chart, svg
from vivace.report.html.chart import Panel
from vivace.report.html.figure import Cell, Figure, Table, absent, table
from vivace.report.html.scale import linear
from vivace.report.html.words import interval, number, plural
from vivace.report.quantum_page import circuits as drawings
from vivace.report.quantum_page.document import QuantumDocument

TITLE = "Estimates from circuits beside the classical values"
TOP, BOTTOM, LEFT = 34.0, 250.0, 62.0


def agreement(document: QuantumDocument) -> Figure:
    """Each slice's estimate with its interval over its classical value, one drawing a test."""
    if not document.simulations:
        return absent(
            1, "agreement", TITLE, f"Nothing was simulated: {'; '.join(document.refused) or 'no reason kept'}."
        )
    return Figure(
        1, "agreement", TITLE, _said(document),
        tuple(_scatter(run, place) for place, run in enumerate(document.simulations)),
        "; ".join(f"{plural(len(run.slices), 'slice')}, {run.shots:,} shots each" for run in document.simulations),
        "the interval is that of Clopper and Pearson for the share of shots that read 0, carried to the layer's units, "
        f"95%; a test agrees if wider intervals, which together miss in {FALSE_ALARM:.0%} of all runs, hold every "
        "classical value",
        "SIMULATED; the layer's own units",
        tuple(_table(run) for run in document.simulations),
        is_wide=True,
    )  # fmt: skip


def circuits(document: QuantumDocument) -> Figure:
    """The largest circuit of each test, as it is before it is translated."""
    shown = {run.test: run for run in reversed(document.simulations) if not run.machine}
    title = "The circuits of the layer"
    if not shown:
        return absent(2, "circuits", title, "No circuit was simulated.")
    said = " ".join(
        f"{run.test.value.capitalize()} test: {run.gates.qubits} qubits, {plural(_size(run), 'gate')} with the "
        f"reading, depth {run.gates.depth}; loading the numbers takes nearly all of them."
        for run in shown.values()
    )
    rows = [_counts_row(run) for run in document.simulations]
    columns = ("test", "translated for", "qubits", "two-qubit gates", "one-qubit gates", "depth")
    return Figure(
        2, "circuits", title, said,
        tuple(drawings.circuit(f"circuit-{t.value}", f"{t.value} test", run.picture) for t, run in shown.items()),
        plural(len(document.simulations), "test"),
        "gates are counted after translation by qiskit to the machine's basis and coupled pairs; turns about Z are "
        "left out of the counts, as they are made in software",
        "SIMULATED; gates",
        (table(columns, rows),),
        is_wide=True,
    )  # fmt: skip


def _size(run: Simulation) -> int:
    """How many gates and readings the circuit has, also those that its picture leaves out."""
    return run.picture.more + sum(map(len, run.picture.columns))


def _said(document: QuantumDocument) -> str:
    told = []
    for run, kept in zip(document.simulations, document.kept_signal, strict=True):
        where = f"under the noise of {run.machine}" if run.machine else "on an ideal machine"
        signal = "" if kept is None else f" Noise leaves {number(kept)} of the signal."
        verdict = "agrees with the classical values within its shot noise" if run.agrees else "does NOT agree"
        told.append(f"The {run.test.value} test {where} {verdict} ({run.held} of {len(run.slices)} in 95%).{signal}")
    return " ".join(told)


def _scatter(run: Simulation, place: int) -> Markup:
    exact = [one.exact for one in run.slices]
    ends = [end for one in run.slices for end in (one.estimate.low, one.estimate.high)]
    panel = Panel(linear(exact, LEFT, chart.WIDTH - 12), linear([*exact, *ends], BOTTOM, TOP))
    low, high = max(panel.x.low, panel.y.low), min(panel.x.high, panel.y.high)
    diagonal = (
        svg.line(panel.x.at(low), panel.y.at(low), panel.x.at(high), panel.y.at(high), "one")
        if low < high
        else Markup("")
    )
    class_ = "original" if run.machine else "winner"
    points = [
        svg.hover(
            f"output {one.place[0]}, elements from {one.first}: {interval(one.estimate)}, exactly {number(one.exact)}",
            panel.upward(one.estimate.low, one.estimate.high, one.exact, class_),
            svg.marker("circle", panel.x.at(one.exact), panel.y.at(one.estimate.value), class_, 2.6),
        )
        for one in run.slices
    ]
    title = f"{run.test.value} test, {run.machine or 'ideal'}: {'agrees' if run.agrees else 'does not agree'}"
    told = f"{run.held} of {len(run.slices)} intervals of 95% hold the classical value"
    axes = panel.axes("classical value", f"{title} (SIMULATED)", number, number)
    return svg.drawing(f"agreement-{place}", title, told, chart.WIDTH, BOTTOM + 36, axes, diagonal, *points)


def _table(run: Simulation) -> Table:
    rows: list[tuple[str | Cell, ...]] = [
        (
            f"{one.place[0]}, {one.place[1]}", f"{one.first}..{one.first + one.elements - 1}",
            Cell(number(one.exact), one.exact), Cell(interval(one.estimate), one.estimate.value),
            Cell(f"{one.zeros:,} of {one.shots:,}", one.zeros), "yes" if one.agrees else "NO",
        )
        for one in run.slices
    ]  # fmt: skip
    rows += [
        (f"{one.place[0]}, {one.place[1]}", f"all {one.slices} slices", Cell(number(one.exact), one.exact),
         Cell(interval(one.estimate), one.estimate.value), "-", "-")
        for one in run.outputs
    ]  # fmt: skip
    kind = "absolute value, without sign" if run.test is OverlapTest.SWAP else "with sign"
    return table(
        ("output, position", "elements", "classical", "estimate [95%]", "read 0", "agrees"), rows,
        f"{run.test.value} test, {run.machine or 'ideal machine'}, {kind} (SIMULATED)",
    )  # fmt: skip


def _counts_row(run: Simulation) -> tuple[str | Cell, ...]:
    counts = run.circuit
    return (
        run.test.value, run.machine or "gates cx and u, all pairs", Cell(str(counts.qubits), counts.qubits),
        Cell(f"{counts.two_qubit:,}", counts.two_qubit), Cell(f"{counts.one_qubit:,}", counts.one_qubit),
        Cell(f"{counts.depth:,}", counts.depth),
    )  # fmt: skip
