"""`vv.synthesize`: a network in, and out a design that is proved, placed and routed for a chip."""

from __future__ import annotations

import dataclasses
import fnmatch
import inspect
import math
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from vivace.api.request import choice
from vivace.api.silicon.array import synthesize_array
from vivace.api.silicon.integers import Integers, integers_of
from vivace.api.silicon.publish import check_destination, conditions, publish
from vivace.api.silicon.steps import Steps
from vivace.api.silicon.tpu import PREFIX as TPU
from vivace.api.silicon.tpu import compile_for_tpu
from vivace.artifact import save
from vivace.core.errors import UsageError
from vivace.core.quality import Budget, Gate, QualityVerdict
from vivace.core.workload import Workload
from vivace.devices.machine import cores_here
from vivace.hardware.array.chip import is_array
from vivace.hardware.array.memory import USUAL, Board
from vivace.hardware.array.result import ArraySynthesis
from vivace.hardware.chip import fold as folds
from vivace.hardware.chip import place, tools
from vivace.hardware.chip.energy import MODEL, energy_of
from vivace.hardware.chip.fold import Fold
from vivace.hardware.chip.parts import Part
from vivace.hardware.chip.parts import part as part_named
from vivace.hardware.chip.place import Placement, Resources
from vivace.hardware.chip.tpus import mesh_of
from vivace.hardware.compiled import TpuCompilation
from vivace.hardware.graph.integer import IntegerGraph, Product
from vivace.hardware.graph.quantize import Precision
from vivace.hardware.proof import simulate
from vivace.hardware.proof.simulate import Proof
from vivace.hardware.proof.vectors import FEWEST, vectors_of
from vivace.hardware.result import FoldPoint, StageRow, Status, Synthesis
from vivace.hardware.rtl import bench
from vivace.hardware.rtl.adders import adder_graph
from vivace.hardware.rtl.plan import Adders, Engine, Unrolled, plan_of, weights_in_order
from vivace.hardware.rtl.schedule import Schedule, roomy
from vivace.hardware.rtl.top import Design, design_of
from vivace.hardware.rtl.unrolled import is_linear
from vivace.report.duration import parse_duration
from vivace.report.progress import Progress, SilentProgress

PLACING_SHARE = 0.3
"""Of the whole time, for placing and routing all seeds."""
TRIES = 3
SHORTEST_SECONDS = 20.0
LONGEST_TOOL_SECONDS = 300.0


@dataclasses.dataclass(frozen=True)
class _Request:
    """What was asked for, checked."""

    part: Part
    budget: Budget
    gate: Gate
    precision: Precision
    seconds: float
    seeds: int
    vectors: int
    cycles: int | None
    placing: bool
    unroll: tuple[str, ...] = ()

    @property
    def deadline(self) -> float:
        """Seconds after which a tool is taken to hang: the first run of each compiles it, which takes a minute."""
        return max(LONGEST_TOOL_SECONDS, self.seconds)

    @property
    def rounds(self) -> int:
        """Placings one after the other, with as many at a time as there are cores."""
        return math.ceil(self.seeds / cores_here())


@dataclasses.dataclass(frozen=True)
class _Built:
    """A design that its part holds, with what it was made of."""

    fold: Fold
    design: Design
    schedule: Schedule
    resources: Resources
    adders: Adders


OF_INTEGERS = frozenset({"budget", "gate", "weight_bits", "activation_bits", "layer_bits"})
"""Settings of whatever computes in integers."""
FLAGS = {"budget": "--max-drop", "placing": "--no-place", "board": "--clock, --bandwidth, --buffer"}
"""What the command line calls settings that have another name there."""


def synthesize(
    work: Workload,
    chip: str,
    out: str | Path = "rtl",
    *,
    budget: Budget = Budget(),
    gate: str = "strict",
    weight_bits: int = 8,
    activation_bits: int = 8,
    layer_bits: Mapping[str, tuple[int, int]] | None = None,
    unroll: Sequence[str] = (),
    time: str | float = "5m",
    seeds: int = 3,
    vectors: int = FEWEST,
    cycles: int | None = None,
    placing: bool = True,
    board: Board = USUAL,
    batch: int = 1,
    mesh: str | None = None,
    progress: Progress | None = None,
) -> Synthesis | ArraySynthesis | TpuCompilation:
    """Turn a network into Verilog for a chip, prove it bit for bit, place and route it, and keep it all in a folder.

    For a TPU (`chip="tpu-v5e"`) it becomes StableHLO instead, which Google's compiler is asked about, for one chip or
    for a `mesh` of several ("data=2,tensor=4"): what follows is for FPGAs. Settings that mean nothing for the kind of
    chip are refused.

    The network is quantized with its own data, to 1 to 8 bits (`layer_bits` has other (weight, activation) bits for
    layers by name or pattern), and judged against the original within `budget`; only integers that hold go on. The
    fold, that is how many multipliers each layer gets, is the fastest that the part holds and whose placing with
    `seeds` seeds is likely to end within `time`; `cycles` asks for the smallest one that takes no more than so many for
    a sample. Linear layers that `unroll` names, by name or pattern, become adder graphs without multipliers or memory:
    for small and sparse ones. The design is compiled by CXXRTL and compared with the golden model on `vectors` real and
    corner inputs. A placing that would take more than ten minutes is refused.

    A chip of the name asic:ROWSxCOLUMNS[:os|ws|is][:2of4] is a systolic array, in which outputs, weights or inputs
    rest: the answer is then an ArraySynthesis, with the cycles and the energy of each layer for `batch` samples on a
    chip with the clock, the bandwidth and the buffer of `board`; nothing is folded, unrolled or placed for it,
    and every layer is simulated on the array with a few samples of the workload's own data.

    Raises UsageError for a chip that is not known (with the nearest names) and for what else cannot be used,
    UnsupportedModel for a layer that has no hardware here or a network that no fold makes fit, MissingExtra where the
    tools are not installed, ProofFailed where the simulation differs: then no result is written.

    >>> result = synthesize(work, chip="ecp5-85k", out="rtl")  # doctest: +SKIP
    >>> result.proof.vectors, result.latency_seconds < 100e-6  # doctest: +SKIP
    (10000, True)
    """
    unroll, layer_bits = tuple(unroll), layer_bits or None
    settings = {
        "budget": budget, "gate": gate, "weight_bits": weight_bits, "activation_bits": activation_bits,
        "layer_bits": layer_bits, "unroll": unroll, "seeds": seeds, "vectors": vectors, "cycles": cycles,
        "placing": placing, "board": board, "batch": batch, "mesh": mesh,
    }  # fmt: skip
    if isinstance(chip, str) and chip.startswith(TPU):
        _refuse_others(chip, settings, frozenset({"mesh"}))
        return compile_for_tpu(work, chip, Path(out), time, progress, None if mesh is None else mesh_of(mesh))
    named = tuple((pattern, *bits) for pattern, bits in (layer_bits or {}).items())
    precision = Precision(weight_bits, activation_bits, named)
    if is_array(chip):
        _refuse_others(chip, settings, OF_INTEGERS | {"board", "batch"})
        return synthesize_array(
            work, chip, out, budget=budget, gate=gate, precision=precision, time=time, board=board, batch=batch,
            progress=progress,
        )  # fmt: skip
    _refuse_others(chip, settings, OF_INTEGERS | {"unroll", "seeds", "vectors", "cycles", "placing"})
    request = _checked(work, chip, budget, gate, precision, time, seeds, vectors, cycles, placing)
    request = dataclasses.replace(request, unroll=unroll)
    destination = Path(out)
    check_destination(destination)
    tools.require(tools.YOSYS, *([place.placer(request.part)] if placing else []))
    steps = Steps(progress or SilentProgress())
    with tempfile.TemporaryDirectory(prefix="vivace-") as name, save.disk_errors(Path(name)):
        folder = Path(name)
        with steps.step("integers", f"capturing {work.name}, calibrating and judging it in integers"):
            found = integers_of(work, folder, request.precision, request.budget, request.gate, request.seconds)
        result = _start(work, request, found)
        if found.quality.verdict is not QualityVerdict.HELD:
            return dataclasses.replace(result, seconds=steps.seconds)
        adders = _adders(found.graph, request.unroll)
        built = _build(found.graph, adders, request, folder, steps)
        return _finish(result, built, found, request, folder, destination, steps)


def _refuse_others(chip: str, settings: Mapping[str, object], used: frozenset[str]) -> None:
    """Raise UsageError for settings that were given and mean nothing for this kind of chip."""
    usual = inspect.signature(synthesize).parameters
    given = [name for name, value in settings.items() if name not in used and value != usual[name].default]
    if given:
        told = ", ".join(f"{name} ({FLAGS.get(name, '--' + name.replace('_', '-'))})" for name in given)
        allowed = ", ".join(sorted(used | {"time"}))
        raise UsageError(f"{told}: of no use for the chip {chip}, for which {allowed} can be set; leave it out")


def _checked(
    work: Workload, chip: str, budget: Budget, gate: str, precision: Precision, time: str | float, seeds: int,
    vectors: int, cycles: int | None, placing: bool,
) -> _Request:  # fmt: skip
    if not isinstance(work, Workload):
        raise UsageError(f"work is a {type(work).__name__}; allowed is a vivace.Workload(model, inputs=...)")
    seconds = parse_duration(time)
    if seconds < SHORTEST_SECONDS:
        raise UsageError(f"time (--time) is {time}; allowed are {SHORTEST_SECONDS:g} seconds or more")
    for label, number, least, most in (("seeds", seeds, 1, 32), ("vectors", vectors, 64, 10_000_000)):
        if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
            raise UsageError(f"{label} (--{label}) is {number!r}; allowed are whole numbers from {least} to {most}")
    if cycles is not None and (isinstance(cycles, bool) or not isinstance(cycles, int) or cycles < 1):
        raise UsageError(f"cycles (--cycles) is {cycles!r}; allowed is a whole number of cycles, 1 or more")
    chosen = choice(Gate, "gate", gate)
    return _Request(part_named(chip), budget, chosen, precision, seconds, seeds, vectors, cycles, placing)


def _start(work: Workload, request: _Request, found: Integers) -> Synthesis:
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


def _build(graph: IntegerGraph, adders: Adders, request: _Request, folder: Path, steps: Steps) -> _Built:
    """The fold that fits, synthesized: where the netlist turns out too large, the next try allows for it."""
    most = place.cells_within(PLACING_SHARE * request.seconds / request.rounds) if request.placing else None
    scale = 1.0
    for attempt in range(TRIES):
        with steps.step("fold", "choosing the multipliers of each layer"):
            fold = _fold(graph, adders, request, None if most is None else round(most / scale))
            plan, schedule = roomy(graph, fold.lanes, adders)
            design = design_of(plan)
        told = f"{fold.total_lanes} multipliers, {schedule.latency} cycles"
        with steps.step("synthesis", told):
            resources = place.synthesize(design, request.part, folder / "chip", request.deadline)
        built = _Built(fold, design, schedule, resources, adders)
        lacking = _actual(resources).lacks(request.part, 1.0)
        if not lacking and (most is None or request.cycles or resources.cells <= most * 1.1):
            return built
        scale *= max(1.05, resources.cells / max(fold.estimate.cells, 1))
        steps.note(f"the netlist has {resources.cells} cells, which is more than was estimated; folding further")
        if attempt == TRIES - 1 and lacking:
            raise UsageError(
                f"the design needs {lacking}; ask for a smaller one with cycles (--cycles), or a larger part"
            )
    return built


def _fold(graph: IntegerGraph, adders: Adders, request: _Request, most_cells: int | None) -> Fold:
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
    result: Synthesis, built: _Built, found: Integers, request: _Request, folder: Path, destination: Path, steps: Steps
) -> Synthesis:
    """The proof beside the placing, then the numbers, then the folder."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        proving = pool.submit(_prove, built, found, request, folder, steps)
        placement, note = _place(built, request, folder, proving, steps)
        steps.tell("proof", f"{request.vectors} vectors in the compiled simulator")
        proof = proving.result()
    result = _numbered(result, built, found, request, proof, placement)
    result = dataclasses.replace(result, notes=tuple(text for text in (*result.notes, note) if text))
    packed = _pack(placement, request, folder)
    result = dataclasses.replace(
        result, bitstream=packed, seconds=steps.seconds, out=destination, conditions=conditions(request.part)
    )
    texts = bench.files_of(built.design, found.graph, found.samples)
    publish(result, texts, folder / "chip", destination)
    return result


def _prove(built: _Built, found: Integers, request: _Request, folder: Path, steps: Steps) -> Proof:
    """Beside the placing, so that it is told of only when it alone is waited for."""
    with steps.timed("proof"):
        simulator = simulate.build(built.design, folder / "proof", request.deadline)
        vectors = vectors_of(found.graph, found.graph.quantize(found.samples), request.vectors)
        return simulator.prove(vectors, built.schedule, 4 * request.deadline)


def _place(
    built: _Built, request: _Request, folder: Path, proving: Future[Proof], steps: Steps
) -> tuple[Placement | None, str]:
    """All seeds placed, or the reason why none was."""
    if not request.placing:
        return None, ""
    likely = place.placing_seconds(built.resources.cells)
    if likely > place.MOST_PLACING_SECONDS:
        return None, (
            f"placing was refused: {built.resources.cells} cells are estimated to take {likely / 60:.0f} minutes a "
            f"seed, and {place.MOST_PLACING_SECONDS / 60:.0f} are allowed; it was synthesized only. Fold further with "
            "cycles (--cycles) to have it placed"
        )
    cores = cores_here()
    first, rest = range(1, request.seeds + 1)[:1], range(1, request.seeds + 1)[1:]
    seconds = max(3 * likely, place.MOST_PLACING_SECONDS)
    with steps.step("placing", f"{request.seeds} seeds, about {likely * request.rounds:.0f} s"):
        part, chip = request.part, folder / "chip"
        if cores == 1 or proving.done() or not rest:
            return place.place(part, chip, [*first, *rest], seconds, cores), ""
        # the simulator takes one core until the proof is done
        one = place.place(part, chip, first, seconds, 1)
        return one.joined(place.place(part, chip, rest, seconds, cores)), ""


def _numbered(
    result: Synthesis, built: _Built, found: Integers, request: _Request, proof: Proof, placement: Placement | None
) -> Synthesis:
    result = dataclasses.replace(
        result,
        stages=_rows(built),
        front=_front(built, request.part),
        latency_cycles=proof.latency,
        interval_cycles=proof.interval,
        proof=proof,
        resources=built.resources,
    )
    if placement is None:
        return result
    hertz = placement.median * 1e6
    return dataclasses.replace(
        result,
        status=Status.PLACED,
        placement=placement,
        latency_seconds=proof.latency / hertz,
        samples_per_second=hertz / proof.interval,
        energy=energy_of(request.part, built.resources, proof.interval, placement.median),
        energy_model=MODEL,
    )


def _rows(built: _Built) -> tuple[StageRow, ...]:
    rows = []
    for stage, cycles in zip(built.design.plan.stages, built.schedule.busy, strict=True):
        operation, value = stage.unit.operation, stage.unit.value
        bits = operation.weight_bits if isinstance(operation, Product) else None
        lanes = stage.unit.lanes if isinstance(stage.unit, Engine) else 0
        kind = f"{type(operation).__name__}, unrolled" if isinstance(stage.unit, Unrolled) else type(operation).__name__
        rows.append(StageRow(stage.name, kind, value.shape, bits, value.format.bits, lanes, cycles))
    return tuple(rows)


def _front(built: _Built, part: Part) -> tuple[FoldPoint, ...]:
    chosen = built.fold
    points = [
        FoldPoint(fold.cycles, fold.total_lanes, fold.estimate, fold.lanes == chosen.lanes)
        for fold in folds.front(built.design.plan.graph, part, built.adders)
    ]
    if not any(point.chosen for point in points):
        points.append(FoldPoint(chosen.cycles, chosen.total_lanes, chosen.estimate, True))
    return tuple(sorted(points, key=lambda point: -point.cycles))


def _pack(placement: Placement | None, request: _Request, folder: Path) -> str | None:
    if placement is None:
        return None
    found = place.pack(request.part, folder / "chip", placement.median_seed, request.deadline)
    return None if found is None else found.name
