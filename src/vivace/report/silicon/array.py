"""An array's synthesis for people and for programs: the block of a terminal, and the document of results.json."""

from __future__ import annotations

from typing import Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vivace.core.quality import Quality
from vivace.hardware.array.area import Area
from vivace.hardware.array.energy import ArrayEnergy
from vivace.hardware.array.memory import Board
from vivace.hardware.array.result import ArrayProof, ArraySynthesis, LayerRow
from vivace.hardware.array.sweep import SweepPoint
from vivace.hardware.result import Status
from vivace.report.document import document_from
from vivace.report.layout import line, plain_table
from vivace.report.silicon.document import SiliconDocument, after_refusal, took
from vivace.report.silicon.hardware import show_time
from vivace.report.wording import quality_sentence

MOST_LAYERS, MOST_POINTS = 16, 12


class ArrayDocument(SiliconDocument):
    """results.json of an array's synthesis, and what `vivace synthesize --chip asic:... --json` prints.

    `proof` is of kind SIMULATED, everything else with a cycle, a second, a joule or a gate of a whole array PREDICTED.
    """

    status: Status
    kind: Literal["PREDICTED"] = "PREDICTED"
    quality: Quality
    weight_bits: int
    activation_bits: int
    board: Board
    batch: int
    layers: list[LayerRow]
    beside: list[str]
    proof_kind: Literal["SIMULATED"] = "SIMULATED"
    proof: ArrayProof | None
    cycles: float | None
    latency_seconds: float | None
    samples_per_second: float | None
    energy: ArrayEnergy | None
    energy_joules: float | None
    energy_model: str
    accumulator_bytes: int
    element: Area | None
    gates: float | None
    sweep: list[SweepPoint]


def document_of(result: ArraySynthesis) -> ArrayDocument:
    """The document of a result."""
    return document_from(ArrayDocument, result, energy_joules=None if result.energy is None else result.energy.value)


def synthesis_block(result: ArraySynthesis) -> RenderableType:
    """What a reader needs of an array's synthesis, verdict first."""
    parts: list[RenderableType] = [Text(_headline(result), f"bold {'yellow' if result.status.exit_code else 'green'}")]
    parts.append(line(quality_sentence(result.quality)))
    if result.proof is not None:
        parts += [line(_proof_sentence(result.proof)), Text(""), _layer_table(result), Text("")]
        parts += [line(text) for text in _figures(result)]
        parts += [Text(""), line("arrays that no other beats in time, energy and gates together (PREDICTED):")]
        parts.append(_front_table(result))
    parts += [line(f"note: {note}") for note in result.notes]
    parts.append(line(_next_step(result)))
    return Group(*parts)


def _headline(result: ArraySynthesis) -> str:
    head = f"{result.name} on {result.chip}"
    if result.latency_seconds is None:
        return f"{head}: {result.status.value}"
    samples = "a sample" if result.batch == 1 else f"a batch of {result.batch}"
    return f"{head}: {show_time(result.latency_seconds)} {samples}, PREDICTED at {result.board.hertz / 1e6:,.0f} MHz"


def _proof_sentence(proof: ArrayProof) -> str:
    return (
        f"proof: {len(proof.products)} layers on {proof.chip}, {proof.whole} of them whole; {proof.sums:,} sums bit "
        f"for bit equal to the golden model's in {proof.cycles:,} cycles, each layer in as many as the closed form "
        "says (SIMULATED)"
    )


def _layer_table(result: ArraySynthesis) -> Table:
    table = plain_table("layer", "M x N x K", "cycles", "waits", "used", "bound by", "energy")
    for row in result.layers[:MOST_LAYERS]:
        sizes = f"{row.rows} x {row.columns} x {row.depth}" + (f", {row.groups} times" if row.groups > 1 else "")
        kind = " (2:4)" if row.sparse else ""
        waits = max(0.0, row.cycles - row.compute_cycles)
        table.add_row(
            row.layer + kind, sizes, f"{row.cycles:,.0f}", f"{waits:,.0f}", f"{row.utilization:.1%}",
            "memory" if row.memory_bound else "array", f"{row.energy * 1e6:.3g} uJ",
        )  # fmt: skip
    if len(result.layers) > MOST_LAYERS:
        table.add_row(f"and {len(result.layers) - MOST_LAYERS} more", *[""] * 6)
    return table


def _figures(result: ArraySynthesis) -> list[str]:
    energy, element, board = result.energy, result.element, result.board
    assert energy is not None and element is not None
    parts = (("arithmetic", energy.arithmetic), ("registers", energy.registers), ("buffers", energy.buffers))
    shares = ", ".join(f"{name} {1e6 * part:.3g}" for name, part in (*parts, ("DRAM", energy.memory)))
    told = [
        f"{result.cycles:,.0f} cycles with {board.bandwidth / 1e9:g} GB/s and {board.buffer_bytes / 1024:,.0f} KiB on "
        f"the chip, {result.samples_per_second:,.0f} samples a second (PREDICTED); accumulators take "
        f"{result.accumulator_bytes / 1024:,.0f} KiB",
        f"energy: {energy.value * 1e6:.3g} uJ ({shares}), PREDICTED: {result.energy_model}",
        f"netlist: {element.gates:,.0f} gates and {element.flip_flops} flip-flops an element (Yosys), about "
        f"{result.gates:,.0f} gates the array (PREDICTED)",
    ]
    if element.square_micrometres is not None:
        told.append(f"area of an element: {element.square_micrometres:,.0f} square micrometres in {element.library}")
    if element.nanoseconds is not None:
        told.append(
            f"clock of an element: at most {1e3 / element.nanoseconds:,.0f} MHz ({element.nanoseconds:.2f} ns) in "
            f"{element.library} by OpenSTA, wires left out; the times above are for {board.hertz / 1e6:,.0f} MHz"
        )
    if result.beside:
        told.append(f"not the array's, and not counted: {', '.join(result.beside)}")
    told.append(took(result.seconds))
    return told


def _front_table(result: ArraySynthesis) -> Table:
    table = plain_table("chip", "GB/s", "time", "energy", "gates", "memory-bound layers")
    here = [point for point in result.sweep if point.front and point.bandwidth == result.board.bandwidth]
    for point in here[:MOST_POINTS]:
        table.add_row(
            point.chip, f"{point.bandwidth / 1e9:g}", show_time(point.seconds), f"{point.joules * 1e6:.3g} uJ",
            f"{point.gates:,.0f}", str(point.memory_bound_layers),
        )  # fmt: skip
    return table


def _next_step(result: ArraySynthesis) -> str:
    return (
        after_refusal(result.status)
        or f"next: {result.out}/ has the Verilog, and in results.json all arrays that were compared"
    )
