"""How far to fold: the fewest cycles whose multipliers, memory and logic the part is estimated to hold."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

from vivace.core.errors import UnsupportedModel
from vivace.hardware.chip.parts import PARTS, Part
from vivace.hardware.graph.integer import IntegerGraph, MaximumPool, Operation, Product, SumPool
from vivace.hardware.rtl.plan import (
    LANES_A_COPY,
    LOGIC_MEMORY_BITS,
    Adders,
    Engine,
    Join,
    Plan,
    Unit,
    Unrolled,
    largest_lanes,
    least_rows,
    plan_of,
)
from vivace.hardware.rtl.schedule import engine_cycles, schedule

SHARE = 0.85
"""Of a part's cells, multipliers and memory that a design may be estimated to take."""
_TRIED = 120
"""Plans that are looked at to shorten the latency."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a design is likely to take, before it is synthesized: 4-input cells, multipliers, memory blocks."""

    cells: int
    multipliers: int
    memory_blocks: int

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(
            self.cells + other.cells,
            self.multipliers + other.multipliers,
            self.memory_blocks + other.memory_blocks,
        )

    def lacks(self, part: Part, share: float = SHARE) -> str:
        """What the part has too little of, as a phrase; empty where the design fits."""
        wanted = (
            ("logic cells", self.cells, part.cells),
            ("multipliers", self.multipliers, part.multipliers),
            ("memory blocks", self.memory_blocks, part.memory_blocks),
        )
        return ", ".join(
            f"{need} {what} where {part.name} has {there}"
            for what, need, there in wanted
            if need > there * share and not (what == "multipliers" and not part.has_multipliers)
        )


@dataclasses.dataclass(frozen=True)
class Fold:
    """Multipliers of each operation by its number, the cycles of the slowest stage, those from a sample's first element
    to its last answer, and what that is likely to take."""

    lanes: Mapping[int, int]
    cycles: int
    latency: int
    estimate: Estimate

    @property
    def total_lanes(self) -> int:
        """Multipliers of the whole design."""
        return sum(self.lanes.values())


def fold_of(graph: IntegerGraph, cycles: int, unrolled: Adders | None = None) -> dict[int, int]:
    """The fewest multipliers with which no operation takes more than `cycles` for a sample, or as many as help.

    Operations that are unrolled have none.
    """
    return {
        number: _lanes_for(graph, number, cycles)
        for number, operation in enumerate(graph.operations)
        if isinstance(operation, Product) and number not in (unrolled or {})
    }


def priced(graph: IntegerGraph, cycles: int, part: Part, unrolled: Adders | None = None) -> Fold:
    """The fold for a number of cycles, and its estimate."""
    lanes = fold_of(graph, cycles, unrolled)
    plan = plan_of(graph, lanes, unrolled=unrolled)
    found = schedule(plan)
    return Fold(lanes, found.interval, found.latency, estimate_of(plan, part))


def fastest(graph: IntegerGraph, part: Part, most_cells: int | None = None, unrolled: Adders | None = None) -> Fold:
    """The fold of the fewest cycles that the part, and `most_cells` where given, hold; where none has so few cells, the
    smallest that the part holds.

    Every fold is looked at: a wider word can lie better in memory blocks, so that more multipliers may fit where fewer
    do not. Raises UnsupportedModel when none fits, with what would.
    """
    folds = [priced(graph, cycles, part, unrolled) for cycles in _targets(graph, unrolled)]  # the slowest first
    held = [fold for fold in folds if not fold.estimate.lacks(part)]
    if not held:
        raise UnsupportedModel(_nothing_fits(graph, folds, part, unrolled))

    def fits(fold: Fold) -> bool:
        return not fold.estimate.lacks(part) and (most_cells is None or fold.estimate.cells <= most_cells)

    small = [fold for fold in held if fits(fold)]
    if not small:
        return min(held, key=lambda fold: fold.estimate.cells)
    return _quickened(graph, small[-1], part, fits, unrolled)


def _quickened(
    graph: IntegerGraph, fold: Fold, part: Part, fits: Callable[[Fold], bool], unrolled: Adders | None
) -> Fold:
    """More multipliers where the slowest stage would not need them, as long as they shorten the latency and fit.

    One layer at a time: the one whose next larger number of multipliers saves the most cycles.
    """
    tried = 0
    while tried < _TRIED:
        better = []
        for number, lanes in fold.lanes.items():
            more = [count for count in _useful(largest_lanes(graph.operations[number])) if count > lanes]
            if not more:
                continue
            wider = {**fold.lanes, number: more[0]}
            plan = plan_of(graph, wider, unrolled=unrolled)
            times = schedule(plan)
            found = Fold(wider, times.interval, times.latency, estimate_of(plan, part))
            tried += 1
            if fits(found):
                better.append((found.latency, number, found))
        if not better or min(one[0] for one in better) >= fold.latency:
            return fold
        fold = min(better, key=lambda one: one[:2])[2]
    return fold


def _useful(most: int) -> list[int]:
    """Numbers of lanes that divide the work differently."""
    return sorted({math.ceil(most / groups) for groups in range(1, most + 1)})


def front(graph: IntegerGraph, part: Part, unrolled: Adders | None = None, *more: Fold) -> list[Fold]:
    """Of the folds that the part holds, and of `more`, those that no other one equals or beats in all of latency,
    cycles a sample and cells: the slowest first."""
    every = [priced(graph, cycles, part, unrolled) for cycles in _targets(graph, unrolled)]
    folds = [*more, *(fold for fold in every if not fold.estimate.lacks(part))]
    sizes = [(fold.latency, fold.cycles, fold.estimate.cells) for fold in folds]
    kept = [
        fold
        for number, (fold, size) in enumerate(zip(folds, sizes, strict=True))
        if not any(
            all(one <= own for one, own in zip(other, size, strict=True)) and (other != size or place < number)
            for place, other in enumerate(sizes)
        )
    ]
    return sorted(kept, key=lambda fold: (-fold.latency, -fold.cycles))


def estimate_of(plan: Plan, part: Part) -> Estimate:
    """What a plan is likely to take: fitted to designs of these templates that Yosys 0.70 synthesized."""
    total = Estimate(40, 0, 0)
    for stage in plan.stages:
        total += _of_unit(stage.unit, part)
    return total


def blocks_of(words: int, bits: int, part: Part) -> int:
    """Memory blocks for so many words of so many bits, in the block's best shape.

    >>> blocks_of(6272, 128, PARTS["ecp5-85k"])
    52
    """
    shapes = {"ecp5": (36, 18, 9, 4, 2, 1), "ice40": (16, 8, 4, 2)}[part.family]
    data = part.memory_bits - part.memory_bits // 9 if part.family == "ecp5" else part.memory_bits
    depth = {wide: part.memory_bits // wide if wide in (36, 18, 9) else data // wide for wide in shapes}
    return min(math.ceil(words / depth[wide]) * math.ceil(bits / wide) for wide in shapes)


def _targets(graph: IntegerGraph, unrolled: Adders | None = None) -> list[int]:
    """Cycles to aim at, from one multiplier a layer to as many as help, in steps of a fifth."""
    walking = {
        number: largest_lanes(operation)
        for number, operation in enumerate(graph.operations)
        if _walks(operation) and number not in (unrolled or {})
    }
    least = graph.input.elements
    slowest = max((_cycles(graph, number, 1) for number in walking), default=least)
    quickest = max((_cycles(graph, number, lanes) for number, lanes in walking.items()), default=least)
    targets = [slowest]
    while targets[-1] > quickest:
        targets.append(max(quickest, min(targets[-1] - 1, math.floor(targets[-1] / 1.2))))
    return targets


def _walks(operation: Operation) -> bool:
    return isinstance(operation, Product | MaximumPool | SumPool)


def _cycles(graph: IntegerGraph, number: int, lanes: int) -> int:
    operation = graph.operations[number]
    assert isinstance(operation, Product | MaximumPool | SumPool)
    source = graph.values[operation.source]
    rows = least_rows(operation.window, source)
    return engine_cycles(Engine(operation, source, graph.values[number + 1], lanes, rows))


def _lanes_for(graph: IntegerGraph, number: int, cycles: int) -> int:
    """Among the lanes that divide the work differently, the fewest that are quick enough, or the quickest."""
    most = largest_lanes(graph.operations[number])
    useful = _useful(most)
    times = [_cycles(graph, number, lanes) for lanes in useful]
    quick = [lanes for lanes, time in zip(useful, times, strict=True) if time <= cycles]
    return quick[0] if quick else useful[times.index(min(times))]


def _of_unit(unit: Unit, part: Part) -> Estimate:
    if isinstance(unit, Join):
        memory = _memory(sum(unit.depths), unit.sources[0].format.bits, part)
        return Estimate(260, 2, 0) + memory
    if isinstance(unit, Unrolled):
        return _of_adders(unit, part)
    if not isinstance(unit, Engine):
        return Estimate(160, 1, 0)
    total = Estimate(110, 0, 0) + _memory(unit.rows * unit.row_elements, unit.source.format.bits, part)
    if isinstance(unit.operation, MaximumPool):
        return total + Estimate(40, 0, 0)
    sums = unit.operation.accumulator_bits
    total += _multiplied(1 if sums <= 18 else 2, sums * 17 * 1.1, part) + Estimate(130 + 3 * sums, 0, 0)
    if isinstance(unit.operation, Product):
        bits = unit.operation.weight_bits
        for held in unit.banks:
            total += _memory(held, bits * unit.lanes, part)
        registers = bits * (1 + len(unit.banks)) + unit.source.format.bits * (1 + 1 / LANES_A_COPY)
        total += Estimate(round(unit.lanes * (2 * sums + registers)), 0, 0)
        total += Estimate(_logic_memory(len(unit.operation.bias), sums + 16), 0, 0)
        wide = unit.source.format.bits + 1
        total += (
            _multiplied(unit.lanes, wide * bits * 1.3, part)
            if unit.has_multipliers
            else Estimate(unit.lanes * (wide + 2), 0, 0)
        )
    return total


def _of_adders(unit: Unrolled, part: Part) -> Estimate:
    """One cell for each bit of each addition, and what rounds the sums."""
    sums = unit.operation.accumulator_bits
    bits = unit.source.format.bits + 2 + unit.operation.weight_bits // 2
    added = len(unit.graph.adders) * bits + unit.lanes * sums
    return Estimate(added + 130 + 3 * sums, 0, 0) + _multiplied(1 if sums <= 18 else 2, sums * 17 * 1.1, part)


def _multiplied(count: int, cells: float, part: Part) -> Estimate:
    """Hard multipliers where the part has them, otherwise logic."""
    return Estimate(0, count, 0) if part.has_multipliers else Estimate(round(count * cells), 0, 0)


def _memory(words: int, bits: int, part: Part) -> Estimate:
    if words * bits <= LOGIC_MEMORY_BITS:
        return Estimate(_logic_memory(words, bits), 0, 0)
    return Estimate(0, 0, blocks_of(words, bits, part))


def _logic_memory(words: int, bits: int) -> int:
    return math.ceil(words / 16) * bits


def _nothing_fits(graph: IntegerGraph, folds: list[Fold], part: Part, unrolled: Adders | None) -> str:
    larger = [name for name, other in PARTS.items() if _holds(graph, other, unrolled)]
    layers = [
        (operation.weight.size * operation.weight_bits, operation.name)
        for operation in graph.operations
        if isinstance(operation, Product)
    ]
    largest = max(layers, default=(0, "none"))
    offered = f"it would fit {', '.join(larger)}" if larger else "it fits no part that is known"
    return (
        f"the network fits no fold on {part.name}: one multiplier a layer needs {folds[0].estimate.lacks(part)} (of "
        f"each, {SHARE:.0%} may be used), and none of the {len(folds)} folds looked at fits; {offered}. Weights take "
        f"{graph.weight_storage_bits / 8192:.0f} KiB, most of them in {largest[1]}: fewer bits (--weight-bits 4) or a "
        "smaller layer help as well"
    )


def _holds(graph: IntegerGraph, part: Part, unrolled: Adders | None) -> bool:
    """Whether a part holds any fold."""
    targets = _targets(graph, unrolled)
    return any(not priced(graph, cycles, part, unrolled).estimate.lacks(part) for cycles in targets)
