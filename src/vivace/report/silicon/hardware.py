"""A synthesis for people and for programs: the block of a terminal, and the document that results.json holds."""

from __future__ import annotations

import math
from typing import Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vivace.core.quality import Quality
from vivace.hardware.chip.energy import Energy
from vivace.hardware.chip.fold import Estimate
from vivace.hardware.chip.place import Resources
from vivace.hardware.proof.simulate import Proof
from vivace.hardware.result import StageRow, Status, Synthesis
from vivace.report.document import JsonDocument, document_from
from vivace.report.layout import line, plain_table
from vivace.report.silicon.document import SiliconDocument, after_refusal, took
from vivace.report.wording import quality_sentence

SCHEMA_VERSION = 1
MOST_STAGES, MOST_POINTS = 10, 6


class FoldPointDocument(JsonDocument):
    """One way to fold the network. Cycles are the schedule's, the rest is estimated."""

    kind: Literal["PREDICTED"] = "PREDICTED"
    cycles: int
    latency: int
    lanes: int
    estimate: Estimate
    chosen: bool


class PlacementDocument(JsonDocument):
    """Every seed's frequency in MHz, with their median, and what the placer counted."""

    seeds: list[int]
    megahertz: list[float]
    median_megahertz: float
    used: dict[str, int]
    available: dict[str, int]
    critical_path: str


class SynthesisDocument(SiliconDocument):
    """results.json of a synthesis, and what `vivace synthesize --json` prints.

    `kind` is of cycles, latency and throughput: they come from the simulator, at the frequency that the placer found.
    Times are seconds, energies joules; `energy_kind` is of `energy`.
    """

    status: Status
    kind: Literal["SIMULATED"] = "SIMULATED"
    quality: Quality
    weight_bits: int
    activation_bits: int
    stages: list[StageRow]
    front: list[FoldPointDocument]
    latency_cycles: int | None
    interval_cycles: float | None
    proof: Proof | None
    resources: Resources | None
    placement: PlacementDocument | None
    likely_placing_seconds: float | None
    latency_seconds: float | None
    samples_per_second: float | None
    energy: Energy | None
    energy_kind: Literal["PREDICTED"] = "PREDICTED"
    energy_model: str
    bitstream: str | None


def document_of(result: Synthesis) -> SynthesisDocument:
    """The document of a result."""
    placed = result.placement
    return document_from(
        SynthesisDocument,
        result,
        front=[document_from(FoldPointDocument, point) for point in result.front],
        placement=None if placed is None else document_from(PlacementDocument, placed, median_megahertz=placed.median),
    )


def synthesis_block(result: Synthesis) -> RenderableType:
    """What a reader needs of a synthesis, verdict first."""
    parts: list[RenderableType] = [Text(_headline(result), f"bold {'yellow' if result.status.exit_code else 'green'}")]
    parts.append(line(quality_sentence(result.quality)))
    if result.proof is not None:
        parts += [line(_proof_sentence(result.proof)), Text(""), _stage_table(result), Text("")]
        parts += [line(text) for text in _figures(result)]
        parts += [Text(""), line("folds that this part is estimated to hold (PREDICTED but for the cycles):")]
        parts.append(_front_table(result))
    parts += [line(f"note: {note}") for note in result.notes]
    parts.append(line(_next_step(result)))
    return Group(*parts)


def show_time(seconds: float) -> str:
    """A short time with its unit.

    >>> show_time(5.73e-05), show_time(0.0021), show_time(4e-9)
    ('57.3 us', '2.10 ms', '4.00 ns')
    """
    units = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))
    unit, size = next((one for one in units if seconds >= one[1]), units[-1])
    return f"{_three(seconds / size)} {unit}"


def _three(value: float) -> str:
    digits = 2 - math.floor(math.log10(value)) if value > 0 else 2
    return f"{value:.{max(0, min(2, digits))}f}"


def _headline(result: Synthesis) -> str:
    head = f"{result.name} on {result.chip}: {result.status.value}"
    if result.latency_seconds is None or result.samples_per_second is None or result.megahertz is None:
        return head
    return (
        f"{head}; {show_time(result.latency_seconds)} a sample, {result.samples_per_second:,.0f} samples a second, "
        f"SIMULATED at {result.megahertz:.1f} MHz"
    )


def _proof_sentence(proof: Proof) -> str:
    return (
        f"proof: {proof.vectors:,} vectors ({proof.real:,} real, {proof.corner} corner, {proof.random:,} random) bit "
        f"for bit equal to the golden model in {proof.cycles:,} simulated cycles, {proof.paused} of them again with "
        f"random pauses; {proof.latency:,} cycles each, as the schedule says"
    )


def _stage_table(result: Synthesis) -> Table:
    table = plain_table("layer", "kind", "output", "bits w/a", "multipliers", "cycles")
    for row in result.stages[:MOST_STAGES]:
        shape = "x".join(str(size) for size in row.shape if size > 1 or row.shape == (1, 1, 1)) or "1"
        bits = f"{row.weight_bits or '-'}/{row.output_bits}"
        lanes = str(row.lanes) if row.weight_bits and row.lanes else "-"
        table.add_row(row.layer, row.kind, shape, bits, lanes, f"{row.cycles:,}")
    if len(result.stages) > MOST_STAGES:
        table.add_row(f"and {len(result.stages) - MOST_STAGES} more", *[""] * 5)
    return table


def _figures(result: Synthesis) -> list[str]:
    found = result.resources
    assert found is not None
    told = [
        f"latency {result.latency_cycles:,} cycles, a sample every {result.interval_cycles:,.1f} (SIMULATED)",
        f"netlist: {found.tables:,} tables, {found.flip_flops:,} flip-flops, {found.multipliers} multipliers, "
        f"{found.memory_blocks} memory blocks",
    ]
    if result.placement is not None:
        each = ", ".join(f"{one:.1f}" for one in result.placement.megahertz)
        told.append(
            f"clock: median {result.placement.median:.1f} MHz of {len(result.placement.seeds)} seeds, "
            f"{min(result.placement.megahertz):.1f} to {max(result.placement.megahertz):.1f} ({each})"
        )
    if result.energy is not None:
        value, low, high = (1e6 * part for part in (result.energy.value, result.energy.low, result.energy.high))
        told.append(f"energy a sample: {value:.3g} uJ, from {low:.2g} to {high:.2g}, PREDICTED by a stated model")
    told.append(took(result.seconds))
    return told


def _front_table(result: Synthesis) -> Table:
    table = plain_table("latency, cycles", "cycles a sample", "multipliers", "cells", "memory blocks", "")
    points = list(result.front)
    step = max(1, math.ceil(len(points) / MOST_POINTS))
    shown = [point for number, point in enumerate(points) if point.chosen or number % step == 0]
    for point in shown:
        guess = point.estimate
        table.add_row(
            f"{point.latency:,}", f"{point.cycles:,}", str(point.lanes), f"{guess.cells:,}", str(guess.memory_blocks),
            "built" if point.chosen else "",
        )  # fmt: skip
    return table


def _next_step(result: Synthesis) -> str:
    if refused := after_refusal(result.status):
        return refused
    packed = f"; {result.bitstream} is the bitstream (pins are free: constrain them first)" if result.bitstream else ""
    return f"next: {result.out}/ has the Verilog, vivace_tb.v checks it in any simulator{packed}"
