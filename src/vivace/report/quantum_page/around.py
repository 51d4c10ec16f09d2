"""What stands around the figures of a quantum run: key numbers above; below, how to do it again, and its limits."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from vivace.report.html import around
from vivace.report.html.figure import Table
from vivace.report.html.skeleton import Tile
from vivace.report.html.words import LONG, cut, interval, number, plural
from vivace.report.quantum_page.document import QuantumDocument, lasting, times_slower

UNSHOWN = ("machine", "versions", "processor_ticks", "throttled_periods")


def key_numbers(document: QuantumDocument) -> Iterator[Tile]:
    """The row of numbers below the first line."""
    won, found = document.verdict, document.estimate
    if won is not None and found is not None:
        times = f"{lasting(won.quantum_seconds)} against {lasting(won.classical_seconds)}"
        yield "the layer, PREDICTED against MEASURED", times_slower(won).removeprefix("about "), times
        yield from _model(document)
        tie = f"instead of {lasting(won.shot_seconds)}"
        yield "a shot, to break even, PREDICTED", lasting(won.needed_shot_seconds), tie
        yield "shots without an error, PREDICTED", number(won.error_free), f"on {won.machine}"
        yield (
            "error-corrected, PREDICTED", lasting(won.corrected_seconds),
            f"with {won.corrected_qubits:,} physical qubits, which nobody has built",
        )  # fmt: skip
    ideal = [run for run in document.simulations if not run.machine]
    if ideal:
        agreed = all(run.agrees for run in ideal)
        slices = plural(sum(len(run.slices) for run in ideal), "slice")
        yield (
            "circuits against classical values, SIMULATED",
            "agree" if agreed else "DIFFER",
            f"{slices}, ideal machine",
        )
    for word in document.words:
        if word.key == "chsh":
            yield "CHSH, SIMULATED", interval(word.value), f"classical bound 2; noise: {word.machine or 'none'}"
    for found_choice in document.choices:
        exact = found_choice.answers[0]
        yield (
            f"{found_choice.name}: used", found_choice.used,
            f"{lasting(exact.seconds)} (MEASURED), {exact.found.evaluations:,} {exact.found.counted}",
        )  # fmt: skip


def _model(document: QuantumDocument) -> Iterator[Tile]:
    won = document.model_verdict
    if won is not None:
        times = f"{lasting(won.quantum_seconds)} against {lasting(won.classical_seconds)}"
        layers = plural(len(document.layers), "linear layer")
        yield f"all {layers}, PREDICTED against MEASURED", times_slower(won).removeprefix("about "), times


def why_slower(document: QuantumDocument) -> str:
    """Why it is slower; empty where nothing was predicted."""
    found = document.estimate
    if found is None or not found.machines:
        return ""
    return (
        f"each of {found.work.products:,} inner products takes {found.machines[0].shots:,} shots, and every shot loads "
        f"all {found.work.elements} numbers again"
    )


def commands(document: QuantumDocument) -> Iterator[tuple[str, str]]:
    """How to do it again: what each command does, and the command."""
    out = shlex.quote(document.out or "quantum")
    seed = document.conditions.get("seed", 0)
    yield (
        "the whole run, with the same circuits and counts",
        (f"vivace quantum TARGET --layer {shlex.quote(cut(document.layer, LONG))} --seed {seed} --out again"),
    )
    yield "this page", f"vivace report {out}"


def limits(document: QuantumDocument) -> Iterator[str]:
    """What the numbers do not say."""
    yield "Nothing ran on a quantum machine: circuits ran in a simulator, whose time says nothing about a machine's."
    yield (
        "The noise is that of gates and readings at a machine's medians. Qubits that wait and decay, crosstalk and "
        "qubits below the median are left out, so that a real machine does worse."
    )
    yield (
        "Times on machines leave out queues, compilation, loading of the control electronics and the repetition that "
        "errors would ask for; circuits side by side are packed without gaps. All of it favours the quantum side."
    )
    yield "The inputs of a layer are those of the model's example call, and they are loaded as numbers, as data are."
    yield (
        "QAOA is tuned on exact expectations and Grover's oracle is a table of all states: both need more on a "
        "machine, and both already took the simulator as many evaluations as trying every state."
    )
    yield "The classical time is of the layer alone on one thread here; a tuned runtime is faster still."
    yield "Error-corrected estimates follow one published model; others differ by small factors, not by powers of ten."
    yield from (f"Not simulated: {reason}" for reason in document.refused)
    yield from (f"{note[:1].upper()}{note[1:]}." for note in document.notes)


def conditions_of(document: QuantumDocument) -> Table:
    """The conditions of every number on the page."""
    rest = document.conditions
    here, versions = _mapping(rest.get("machine")), _mapping(rest.get("versions"))
    rows = [("processor", f"{here.get('processor', 'not recorded')}, {here.get('cores_allowed', '?')} cores allowed")]
    rows += [("instructions", " ".join(map(str, here["instructions"])))] if here.get("instructions") else []
    rows += [("versions", around.listed(versions))] if versions else []
    return around.conditions(rows, {key: value for key, value in rest.items() if key not in UNSHOWN})


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}
