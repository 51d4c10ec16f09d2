"""A prediction for arrays, for people and for programs: the chips side by side, what waits for memory, the front."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vivace.hardware.array.energy import ArrayEnergy
from vivace.hardware.array.memory import Board
from vivace.hardware.array.result import ArrayPrediction, ChipPrediction, LayerRow
from vivace.hardware.array.sweep import SweepPoint
from vivace.report.document import JsonDocument, document_from
from vivace.report.layout import line, plain_table
from vivace.report.silicon.hardware import show_time

MOST_CHIPS, MOST_POINTS, MOST_LAYERS = 12, 12, 4


class ChipPredictionDocument(JsonDocument):
    """One chip at one bandwidth; `memory_bound` names the layers that wait for memory."""

    chip: str
    bandwidth: float
    cycles: float
    seconds: float
    energy: ArrayEnergy
    energy_joules: float
    gates: float
    layers: list[LayerRow]
    memory_bound: list[str]


class ArrayPredictionDocument(JsonDocument):
    """What `vivace predict --on asic:... --json` prints: every number with a cycle, a second, a joule or a gate is
    PREDICTED. Bandwidths are bytes a second, times seconds, energies joules."""

    schema_version: Literal[1] = 1
    kind: Literal["PREDICTED"] = "PREDICTED"
    name: str
    batch: int
    board: Board
    chips: list[ChipPredictionDocument]
    points: list[SweepPoint]
    beside: dict[str, int]
    energy_model: str
    notes: list[str]


def document_of(found: ArrayPrediction) -> ArrayPredictionDocument:
    """The document of a prediction."""
    chips = [
        document_from(
            ChipPredictionDocument, chip, energy_joules=chip.energy.value, memory_bound=list(chip.memory_bound)
        )
        for chip in found.chips
    ]
    return document_from(ArrayPredictionDocument, found, chips=chips)


def prediction_block(found: ArrayPrediction) -> RenderableType:
    """Under 40 lines: the chips, the layers that wait for memory, the front, notes."""
    board = found.board
    samples = "a sample" if found.batch == 1 else f"a batch of {found.batch}"
    products = len(found.chips[0].layers)
    parts: list[RenderableType] = [
        line(
            f"{found.name}: {products} products for {samples} on systolic arrays at {board.hertz / 1e6:g} MHz with "
            f"{board.buffer_bytes / 1024:,g} KiB on the chip (PREDICTED)"
        ),
        Text(""),
        _chip_table(found.chips[:MOST_CHIPS]),
    ]
    if len(found.points) > len(found.chips):
        parts += [Text(""), line(_front_title(found)), _front_table(found)]
    parts += [line(f"energy: {found.energy_model}"), *_beside(found)]
    return Group(*parts, *(line(f"note: {note}") for note in found.notes))


def _chip_table(chips: Iterable[ChipPrediction]) -> Table:
    table = plain_table("chip", "GB/s", "time", "used", "energy", "gates", "memory-bound layers")
    for chip in chips:
        busy = sum(row.utilization * (row.cycles + 1) for row in chip.layers) / chip.cycles
        table.add_row(
            chip.chip, f"{chip.bandwidth / 1e9:g}", show_time(chip.seconds), f"{busy:.1%}",
            f"{chip.energy.value * 1e6:.3g} uJ", f"{chip.gates:,.0f}", _bound(chip),
        )  # fmt: skip
    return table


def _bound(chip: ChipPrediction) -> str:
    """How many layers wait for memory, and which take the longest."""
    waiting = sorted((row for row in chip.layers if row.memory_bound), key=lambda row: -row.cycles)
    names = list(dict.fromkeys(row.layer for row in waiting))
    more = ", ..." if len(names) > MOST_LAYERS else ""
    told = f": {', '.join(names[:MOST_LAYERS])}{more}" if names else ""
    return f"{len(waiting)} of {len(chip.layers)}{told}"


def _front_title(found: ArrayPrediction) -> str:
    front = sum(point.front for point in found.points)
    return (
        f"{len(found.points)} arrays and bandwidths were compared; at its bandwidth no other beats these {front} in "
        "time, energy and gates together:"
    )


def _front_table(found: ArrayPrediction) -> Table:
    table = plain_table("chip", "GB/s", "time", "energy", "gates", "memory-bound layers")
    front = [point for point in found.points if point.front]
    step = max(1, -(-len(front) // MOST_POINTS))
    for point in front[::step]:
        table.add_row(
            point.chip, f"{point.bandwidth / 1e9:g}", show_time(point.seconds), f"{point.joules * 1e6:.3g} uJ",
            f"{point.gates:,.0f}", str(point.memory_bound_layers),
        )  # fmt: skip
    if len(front) > len(front[::step]):
        table.add_row(f"and {len(front) - len(front[::step])} more", *[""] * 5)
    return table


def _beside(found: ArrayPrediction) -> list[RenderableType]:
    if not found.beside:
        return []
    told = ", ".join(f"{name} x {count}" for name, count in sorted(found.beside.items(), key=lambda one: -one[1]))
    return [line(f"not the array's, and not counted: {told}")]
