"""What a built and proved design comes to: its stages, its folds, its times and its energy."""

from __future__ import annotations

import dataclasses
from concurrent.futures import Future

from vivace.hardware.chip import fold as folds
from vivace.hardware.chip.energy import MODEL, energy_of
from vivace.hardware.chip.fold import Fold
from vivace.hardware.chip.parts import Part
from vivace.hardware.chip.place import Placement, Resources
from vivace.hardware.graph.integer import Product
from vivace.hardware.proof.simulate import Proof, Simulator
from vivace.hardware.result import FoldPoint, StageRow, Status, Synthesis
from vivace.hardware.rtl.plan import Adders, Engine, Unrolled
from vivace.hardware.rtl.schedule import Schedule
from vivace.hardware.rtl.top import Design


@dataclasses.dataclass(frozen=True)
class Built:
    """A design that its part holds, with what it was made of, and its simulator, which may still be compiling."""

    fold: Fold
    design: Design
    schedule: Schedule
    resources: Resources
    adders: Adders
    simulator: Future[Simulator]


def numbered(result: Synthesis, built: Built, part: Part, proof: Proof, placement: Placement | None) -> Synthesis:
    """A result with all that the design, its proof and its placement say."""
    result = dataclasses.replace(
        result,
        stages=_rows(built),
        front=_front(built, part),
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
        energy=energy_of(part, built.resources, proof.interval, placement.median),
        energy_model=MODEL,
    )


def _rows(built: Built) -> tuple[StageRow, ...]:
    rows = []
    for stage, cycles in zip(built.design.plan.stages, built.schedule.busy, strict=True):
        operation, value = stage.unit.operation, stage.unit.value
        bits = operation.weight_bits if isinstance(operation, Product) else None
        lanes = stage.unit.lanes if isinstance(stage.unit, Engine) else 0
        kind = f"{type(operation).__name__}, unrolled" if isinstance(stage.unit, Unrolled) else type(operation).__name__
        rows.append(StageRow(stage.name, kind, value.shape, bits, value.format.bits, lanes, cycles))
    return tuple(rows)


def _front(built: Built, part: Part) -> tuple[FoldPoint, ...]:
    chosen = built.fold
    found = folds.front(built.design.plan.graph, part, built.adders, chosen)
    points = [
        FoldPoint(fold.cycles, fold.latency, fold.total_lanes, fold.estimate, fold.lanes == chosen.lanes)
        for fold in (found if any(fold.lanes == chosen.lanes for fold in found) else [*found, chosen])
    ]
    return tuple(sorted(points, key=lambda point: (-point.latency, -point.cycles)))
