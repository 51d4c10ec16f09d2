"""A network on an FPGA: integers, a fold that fits, the proof beside the placing, and the folder."""

from __future__ import annotations

import dataclasses
import fnmatch
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vivace.api.silicon.integers import Integers, integers_of
from vivace.api.silicon.numbers import Built, numbered
from vivace.api.silicon.publish import check_destination, conditions, publish
from vivace.api.silicon.request import Request
from vivace.api.silicon.steps import Steps
from vivace.artifact import save
from vivace.core.errors import UsageError
from vivace.core.quality import QualityVerdict
from vivace.core.workload import Workload
from vivace.devices.machine import cores_here
from vivace.hardware.chip import fold as folds
from vivace.hardware.chip import place, tools
from vivace.hardware.chip.crew import crew
from vivace.hardware.chip.fold import Fold
from vivace.hardware.chip.place import Placement, Resources
from vivace.hardware.graph.integer import IntegerGraph, Product
from vivace.hardware.proof import simulate
from vivace.hardware.proof.simulate import Proof
from vivace.hardware.proof.vectors import vectors_of
from vivace.hardware.result import Status, Synthesis
from vivace.hardware.rtl import bench
from vivace.hardware.rtl.adders import adder_graph
from vivace.hardware.rtl.plan import Adders, plan_of, weights_in_order
from vivace.hardware.rtl.schedule import roomy
from vivace.hardware.rtl.top import design_of
from vivace.hardware.rtl.unrolled import is_linear
from vivace.report.duration import show_duration
from vivace.report.progress import Progress, SilentProgress

TRIES = 3


def synthesize_fpga(work: Workload, request: Request, out: str | Path, progress: Progress | None) -> Synthesis:
    """A network on the part that was asked for; see `synthesize`.

    Raises UnsupportedModel for a layer that has no hardware here or a network that no fold makes fit, UsageError for
    what else cannot be used, MissingExtra and EnvironmentFault where tools are missing or fail, ProofFailed where the
    simulation differs.
    """
    destination = Path(out)
    check_destination(destination)
    needed = [tools.YOSYS, *([place.placer(request.part)] if request.placing else [])]
    tools.require(*needed)
    tools.require_compiler()
    steps = Steps(progress or SilentProgress())
    with tempfile.TemporaryDirectory(prefix="vivace-") as name, save.disk_errors(Path(name)):
        folder = Path(name)
        with steps.step("integers", f"capturing {work.name}, calibrating and judging it in integers"):
            found = integers_of(work, folder, request.precision, request.budget, request.gate, request.seconds)
        result = _start(work, request, found)
        if found.quality.verdict is not QualityVerdict.HELD:
            return dataclasses.replace(result, seconds=steps.seconds)
        adders = _adders(found.graph, request.unroll)
        for tool in tools.cold(*needed):
            with steps.step("tools", f"compiling {tool.program}, once"):
                tools.warm(tool)
        with crew(cores_here()) as pool:
            built = _build(found.graph, adders, request, folder, steps, pool)
            return _finish(result, built, found, request, folder, destination, steps, pool)


def _start(work: Workload, request: Request, found: Integers) -> Synthesis:
    status = Status.of(found.quality.verdict)
    bits = request.precision
    return Synthesis(
        work.name, request.part.name, status, found.quality, bits.weights, bits.activations, notes=found.notes
    )


def _adders(graph: IntegerGraph, patterns: Sequence[str]) -> Adders:
    """The adder graphs of the layers that are to be unrolled. Raises UsageError for a pattern that fits none."""
    linear = {
        number: operation
        for number, operation in enumerate(graph.operations)
        if isinstance(operation, Product) and is_linear(operation, graph.values[operation.source].shape)
    }
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(operation.name, pattern) for operation in linear.values()):
            names = ", ".join(operation.name for operation in linear.values()) or "none"
            raise UsageError(
                f"unroll (--unroll) received {pattern!r}, which no linear layer answers to; they are {names}"
            )
    chosen = [
        number
        for number, operation in linear.items()
        if any(fnmatch.fnmatchcase(operation.name, pattern) for pattern in patterns)
    ]
    plan = plan_of(graph, {}) if chosen else None
    return {number: adder_graph(weights_in_order(plan, number)) for number in chosen if plan is not None}


def _build(
    graph: IntegerGraph, adders: Adders, request: Request, folder: Path, steps: Steps, pool: ThreadPoolExecutor
) -> Built:
    """The fold that fits, synthesized: where the netlist turns out too large, the next try allows for it.

    The simulator of each try is compiled beside its synthesis.
    """
    most = request.most_cells
    scale, built = 1.0, None
    for attempt in range(TRIES):
        with steps.step("fold", "choosing the multipliers of each layer"):
            fold = _fold(graph, adders, request, None if most is None else round(most / scale))
        if built is not None and fold.lanes == built.fold.lanes:
            break  # there is none smaller
        if built is not None:
            steps.note(f"the netlist has {built.resources.cells} cells, more than was estimated; folding further")
        plan, schedule = roomy(graph, fold.lanes, adders)
        design = design_of(plan)
        told = f"{fold.total_lanes} multiplier{'s' * (fold.total_lanes != 1)}, {schedule.latency} cycles"
        with steps.step("synthesis", told):
            simulator = pool.submit(simulate.build, design, folder / f"proof_{attempt}", request.deadline)
            resources = place.synthesize(design, request.part, folder / "chip", request.deadline)
        built = Built(fold, design, schedule, resources, adders, simulator)
        lacking = _actual(resources).lacks(request.part, 1.0)
        if not lacking and (most is None or request.cycles or resources.cells <= most * 1.1):
            return built
        scale *= max(1.05, resources.cells / max(fold.estimate.cells, 1))
    assert built is not None
    lacking = _actual(built.resources).lacks(request.part, 1.0)
    if lacking:
        raise UsageError(f"the design needs {lacking}; ask for a smaller one with cycles (--cycles), or a larger part")
    return built


def _fold(graph: IntegerGraph, adders: Adders, request: Request, most_cells: int | None) -> Fold:
    if request.cycles is None:
        return folds.fastest(graph, request.part, most_cells, adders)
    fold = folds.priced(graph, request.cycles, request.part, adders)
    lacking = fold.estimate.lacks(request.part, 1.0)
    if fold.cycles > request.cycles or lacking:
        best = folds.fastest(graph, request.part, None, adders)
        why = f"it needs {lacking}" if lacking else f"the network's shortest is {fold.cycles}"
        raise UsageError(
            f"{request.cycles} cycles a sample (--cycles) cannot be had on {request.part.name}: {why}; "
            f"{best.cycles} are likely to fit"
        )
    return fold


def _actual(resources: Resources) -> folds.Estimate:
    return folds.Estimate(resources.cells, resources.multipliers, resources.memory_blocks)


def _finish(
    result: Synthesis, built: Built, found: Integers, request: Request, folder: Path, destination: Path, steps: Steps,
    pool: ThreadPoolExecutor,
) -> Synthesis:  # fmt: skip
    """The proof beside the placing, then the numbers, then the folder."""
    proving = pool.submit(_prove, built, found, request, steps)
    likely = place.placing_seconds(built.resources.cells) * request.rounds
    placement, note = _place(built, request, folder, likely, steps, pool)
    steps.tell("proof", f"{request.vectors} vectors in the compiled simulator")
    proof = proving.result()
    result = numbered(result, built, request.part, proof, placement)
    result = dataclasses.replace(
        result, notes=tuple(text for text in (*result.notes, note) if text), likely_placing_seconds=likely
    )
    packed = _pack(placement, request, folder)
    result = dataclasses.replace(
        result, bitstream=packed, seconds=steps.seconds, out=destination, conditions=conditions(request.part)
    )
    texts = bench.files_of(built.design, found.graph, found.samples)
    publish(result, texts, folder / "chip", destination)
    return result


def _prove(built: Built, found: Integers, request: Request, steps: Steps) -> Proof:
    """Beside the placing, so that it is told of only when it alone is waited for."""
    with steps.timed("proof"):
        simulator = built.simulator.result()
        vectors = vectors_of(found.graph, found.graph.quantize(found.samples), request.vectors)
        return simulator.prove(vectors, built.schedule, 4 * request.deadline)


def _place(
    built: Built, request: Request, folder: Path, likely: float, steps: Steps, pool: ThreadPoolExecutor
) -> tuple[Placement | None, str]:
    """All seeds placed, or the reason why none was."""
    if not request.placing:
        return None, ""
    if likely > request.longest_placing:
        return None, (
            f"placing was refused: {built.resources.cells:,} cells with {request.seeds} seeds are estimated to take "
            f"{show_duration(likely)}, and {show_duration(request.longest_placing)} are allowed (--longest-placing); "
            "it was synthesized only. Fold further with cycles (--cycles) to have it placed"
        )
    with steps.step("placing", f"{request.seeds} seeds, about {show_duration(likely)}"):
        seeds = range(1, request.seeds + 1)
        allowed = max(3 * likely, request.deadline)
        return place.place(request.part, folder / "chip", seeds, allowed, pool), ""


def _pack(placement: Placement | None, request: Request, folder: Path) -> str | None:
    if placement is None:
        return None
    found = place.pack(request.part, folder / "chip", placement.median_seed, request.deadline)
    return None if found is None else found.name
