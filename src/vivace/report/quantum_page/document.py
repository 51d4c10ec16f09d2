"""The document of a quantum run, which quantum.json holds, and its first line: the verdict."""

from __future__ import annotations

import math
from typing import Any

from vivace.quantum.choices.answer import Comparison
from vivace.quantum.layers.estimate import Simulation
from vivace.quantum.resources.break_even import LayerEstimate, Verdict
from vivace.quantum.result import LayerShape, QuantumResult
from vivace.quantum.words.demonstration import Demonstration
from vivace.report.document import JsonDocument, document_from
from vivace.report.html.words import number

SCHEMA_VERSION = 1
LONG_UNITS = ((365.25 * 86400, "years"), (86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (1.0, "s"),
              (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"), (1e-12, "ps"), (1e-15, "fs"))  # fmt: skip
DROWNED = 0.5
"""Below this share of shots without an error the verdict says so."""


class QuantumDocument(JsonDocument):
    """A quantum run. Simulations and words are SIMULATED; estimates and verdicts PREDICTED; `classical_seconds` in them
    and the seconds of solvers MEASURED here."""

    schema_version: int
    headline: str
    name: str
    layer: str
    layers: tuple[LayerShape, ...]
    simulations: tuple[Simulation, ...]
    kept_signal: tuple[float | None, ...]
    estimates: tuple[LayerEstimate, ...]
    verdict: Verdict | None
    model_verdict: Verdict | None
    choices: tuple[Comparison, ...]
    words: tuple[Demonstration, ...]
    refused: tuple[str, ...]
    notes: tuple[str, ...]
    conditions: dict[str, Any]
    out: str | None = None

    @property
    def estimate(self) -> LayerEstimate | None:
        """What the chosen layer takes."""
        return next((one for one in self.estimates if one.work.layer == self.layer), None)


def quantum_document(result: QuantumResult) -> QuantumDocument:
    """The document of a result."""
    told = verdict_line(result.name, result.layer, result.verdict)
    return document_from(QuantumDocument, result, schema_version=SCHEMA_VERSION, headline=told)


def headline(document: QuantumDocument) -> str:
    """The first line: how many times slower, on what, and what a tie would ask for."""
    return verdict_line(document.name, document.layer, document.verdict)


def verdict_line(name: str, layer: str, found: Verdict | None) -> str:
    """The verdict on a layer in one sentence."""
    where = f"{name}, layer {layer}"
    if found is None:
        return f"{where}: no verdict, because no classical time was measured or no machine can hold it"
    told = (
        f"{where}: {times_slower(found)} than one CPU core: {lasting(found.quantum_seconds)} on {found.machine} "
        f"(PREDICTED) against {lasting(found.classical_seconds)} (MEASURED); to break even, it would need shots of "
        f"{lasting(found.needed_shot_seconds)} instead of {lasting(found.shot_seconds)}"
    )
    if found.error_free < DROWNED:
        told += f", and gates that do not fail: {found.error_free:.2g} of its shots would be free of errors"
    return told


def model_line(document: QuantumDocument) -> str:
    """The verdict on all linear layers in one sentence; empty where there is none."""
    found, count = document.model_verdict, len(document.layers)
    if found is None:
        return ""
    return (
        f"all {count} linear layers: {times_slower(found)}, {lasting(found.quantum_seconds)} on {found.machine} "
        f"(PREDICTED) against {lasting(found.classical_seconds)} (MEASURED); on an error-corrected machine of "
        f"{found.corrected_qubits:,} physical qubits, which nobody has built, {lasting(found.corrected_seconds)} "
        "(PREDICTED)"
    )


def times_slower(found: Verdict) -> str:
    """How many times slower, as a power of ten from a hundred on."""
    if not 1 <= found.slower < math.inf:
        return "not slower by this count, which leaves errors out and claims no speed-up,"
    if found.slower < 100:
        return f"about {found.slower:.2g} times slower"
    return f"about 10^{found.power} times slower"


def lasting(seconds: float | None) -> str:
    """A time in the unit that suits it, from femtoseconds to years.

    >>> lasting(3.2e-12), lasting(7200.0), lasting(None), lasting(4e9)
    ('3.2 ps', '2 hours', 'not published', '127 years')
    """
    if seconds is None:
        return "not published"
    size, unit = next(((size, unit) for size, unit in LONG_UNITS if seconds >= size), LONG_UNITS[-1])
    return f"{number(seconds / size)} {unit}"
