"""A network on a systolic array: its layers' cycles and energy, the array's Verilog, and the proof on its own data."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vivace.api.request import choice
from vivace.api.silicon.integers import Integers, integers_of
from vivace.api.silicon.publish import TOOLS, check_destination, publish_texts, versions
from vivace.api.silicon.steps import Steps
from vivace.artifact import save
from vivace.core.errors import UsageError
from vivace.core.quality import Budget, Gate, QualityVerdict
from vivace.core.workload import Workload
from vivace.hardware.array import layers, simulate
from vivace.hardware.array.area import Area, advice, area_of, array_gates
from vivace.hardware.array.chip import Chip, Dataflow, chip_of
from vivace.hardware.array.energy import MODEL
from vivace.hardware.array.memory import USUAL, Board, accumulator_bytes
from vivace.hardware.array.result import ArrayProof, ArraySynthesis, LayerRow, rows_of
from vivace.hardware.array.sweep import sweep
from vivace.hardware.array.verilog import TOP, verilog_of
from vivace.hardware.chip import tools
from vivace.hardware.graph.quantize import Precision
from vivace.hardware.result import Status
from vivace.report.duration import parse_duration
from vivace.report.progress import Progress, SilentProgress
from vivace.report.silicon.array import document_of

LARGEST_SIMULATED = 256
"""Elements of an array that is compiled whole; of a larger one, an array of at most so many from the same templates."""
SIMULATED_SAMPLES = 4
SIMULATED_WORK = 16_000_000
"""Elements times cycles of all layers together."""
MOST_BATCH = 1 << 16


@dataclasses.dataclass(frozen=True)
class _Request:
    chip: Chip
    board: Board
    batch: int
    budget: Budget
    gate: Gate
    precision: Precision
    seconds: float


def synthesize_array(
    work: Workload, chip: str, out: str | Path, *, budget: Budget, gate: str, precision: Precision, time: str | float,
    board: Board = USUAL, batch: int = 1, progress: Progress | None = None,
) -> ArraySynthesis:  # fmt: skip
    """A network on the array that `chip` names; see `synthesize`, whose arguments these are.

    Raises UsageError for a name that cannot be read, UnsupportedModel for a layer that integers cannot do, MissingExtra
    where Yosys is not installed, ProofFailed where the simulated array differs in one sum or one cycle.
    """
    request = _checked(work, chip, budget, gate, precision, time, board, batch)
    destination = Path(out)
    check_destination(destination)
    tools.require(tools.YOSYS)
    steps = Steps(progress or SilentProgress())
    with tempfile.TemporaryDirectory(prefix="vivace-") as name, save.disk_errors(Path(name)):
        folder = Path(name)
        with steps.step("integers", f"capturing {work.name}, calibrating and judging it in integers"):
            found = integers_of(work, folder, precision, budget, request.gate, request.seconds)
        result = _start(work, request, found)
        if found.quality.verdict is not QualityVerdict.HELD:
            return dataclasses.replace(result, seconds=steps.seconds)
        with steps.step("proof", "the array in the compiled simulator, on the network's own layers"):
            proof = prove(request.chip, found, folder / "proof", request.seconds)
        with steps.step("gates", "synthesizing the element, and those of other arrays"):
            areas = _areas(folder / "gates", request.seconds)
        result = _numbered(dataclasses.replace(result, proof=proof), found, request, areas)
        result = dataclasses.replace(result, seconds=steps.seconds, conditions=versions(*TOOLS), out=destination)
        publish_texts({f"{TOP}.v": verilog_of(request.chip)}, document_of(result).to_text(), destination)
    return result


def prove(chip: Chip, found: Integers, folder: Path, seconds: float) -> ArrayProof:
    """Run a product of every layer, from real inputs, on the simulated array."""
    simulated = simulated_chip(chip)
    count = min(SIMULATED_SAMPLES, len(found.samples))
    whole = layers.operands_of(found.graph, found.graph.quantize(np.asarray(found.samples[:count])))
    each = SIMULATED_WORK // simulated.elements // max(1, len(whole))
    taken = [layers.cut(product, simulated, each) for product in whole]
    checked = simulate.build(simulated, folder, seconds).prove(taken, seconds)
    groups = [layer.gemm.groups for layer in layers.layers_of(found.graph)]
    same = sum(
        (one.activations.shape, one.weights.shape, number) == (other.activations.shape, other.weights.shape, 1)
        for one, other, number in zip(whole, taken, groups, strict=True)
    )
    return ArrayProof(simulated.name, checked, same)


def simulated_chip(chip: Chip) -> Chip:
    """The array itself, or one of the same kind that compiles in seconds.

    >>> simulated_chip(Chip(128, 16)).name, simulated_chip(Chip(4, 8)).name
    ('asic:16x16:ws', 'asic:4x8:ws')
    """
    if chip.elements <= LARGEST_SIMULATED:
        return chip
    side = int(LARGEST_SIMULATED**0.5)
    rows = min(chip.rows, max(side, LARGEST_SIMULATED // chip.columns))
    return dataclasses.replace(chip, rows=rows, columns=min(chip.columns, LARGEST_SIMULATED // rows))


def _checked(
    work: Workload, chip: str, budget: Budget, gate: str, precision: Precision, time: str | float, board: Board,
    batch: int,
) -> _Request:  # fmt: skip
    if not isinstance(work, Workload):
        raise UsageError(f"work is a {type(work).__name__}; allowed is a vivace.Workload(model, inputs=...)")
    if isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= MOST_BATCH:
        raise UsageError(f"batch (--batch) is {batch!r}; allowed are whole numbers from 1 to {MOST_BATCH}")
    return _Request(chip_of(chip), board, batch, budget, choice(Gate, "gate", gate), precision, parse_duration(time))


def _start(work: Workload, request: _Request, found: Integers) -> ArraySynthesis:
    bits = request.precision
    status = Status.of(found.quality.verdict)
    return ArraySynthesis(
        work.name, request.chip.name, status, found.quality, bits.weights, bits.activations, request.board,
        request.batch, notes=found.notes,
    )  # fmt: skip


def _areas(folder: Path, seconds: float) -> Mapping[tuple[Dataflow, bool], Area]:
    """The element of each kind of array: it does not depend on the array's size."""
    kinds = list(itertools.product(Dataflow, (False, True)))
    return {
        (flow, sparse): area_of(Chip(2, 2, flow, sparse), folder / f"{flow.value}{sparse:d}", seconds)
        for flow, sparse in kinds
    }


def _numbered(
    result: ArraySynthesis, found: Integers, request: _Request, areas: Mapping[tuple[Dataflow, bool], Area]
) -> ArraySynthesis:
    chip, board = request.chip, request.board
    mapped = layers.layers_of(found.graph, request.batch)
    gemms = [layer.gemm for layer in mapped]
    rows, energy = rows_of(mapped, chip, board)
    cycles = sum(row.cycles + 1 for row in rows)
    element = areas[chip.dataflow, chip.sparse]
    return dataclasses.replace(
        result,
        layers=rows,
        beside=layers.beside(found.graph),
        cycles=cycles,
        latency_seconds=cycles / board.hertz,
        samples_per_second=request.batch * board.hertz / cycles,
        energy=energy,
        energy_model=MODEL,
        accumulator_bytes=max(accumulator_bytes(gemm, chip) for gemm in gemms),
        element=element,
        gates=array_gates(chip, element),
        sweep=sweep(gemms, board, areas),
        notes=(*result.notes, *_notes(result, chip, rows, element)),
    )


def _notes(result: ArraySynthesis, chip: Chip, rows: Sequence[LayerRow], element: Area) -> list[str]:
    told = [advice(element)]
    proof = result.proof
    if proof is not None and proof.chip != chip.name:
        told.append(f"{proof.chip} was simulated, from the same templates: {chip.name} would take long to compile")
    if chip.sparse and not any(row.sparse for row in rows):
        told.append(
            "no layer has 2:4 weights, so all run dense on this array: prune the network to 2:4 before, and the layers "
            "take about half the cycles"
        )
    return [text for text in told if text]
