"""Other arrays for the same network: sizes, dataflows, sparsity and bandwidth, and which of them nothing beats."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from vivace.hardware.array.area import Area, array_gates
from vivace.hardware.array.chip import Chip, Dataflow
from vivace.hardware.array.cycles import Gemm
from vivace.hardware.array.energy import ArrayEnergy, energy_of
from vivace.hardware.array.memory import Board, time_of

SIDES = (8, 16, 32, 64, 128)
BANDWIDTHS = (0.25, 1.0, 4.0)
"""Of what the user said."""


@dataclasses.dataclass(frozen=True)
class SweepPoint:
    """A chip at a bandwidth (bytes a second): seconds and joules of a batch, and gates of the array. PREDICTED.

    `front`: no other chip at this bandwidth is as good in all three and better in one.
    """

    chip: str
    bandwidth: float
    seconds: float
    joules: float
    gates: float
    memory_bound_layers: int
    front: bool = False

    @property
    def costs(self) -> tuple[float, float, float]:
        """Time, energy and area, of which less is better."""
        return self.seconds, self.joules, self.gates


def sweep(gemms: Sequence[Gemm], board: Board, areas: Mapping[tuple[Dataflow, bool], Area]) -> tuple[SweepPoint, ...]:
    """Every chip of these sizes for which there is an element's area, at each bandwidth; fastest first."""
    points: list[SweepPoint] = []
    for share in BANDWIDTHS:
        around = dataclasses.replace(board, bandwidth=board.bandwidth * share)
        chips = [Chip(side, side, flow, sparse) for side in SIDES for flow, sparse in areas]
        found = [_point(gemms, chip, around, areas[chip.dataflow, chip.sparse]) for chip in chips]
        points += mark_front(found)
    return tuple(sorted(points, key=lambda point: (point.bandwidth, point.seconds)))


def mark_front(points: Sequence[SweepPoint]) -> list[SweepPoint]:
    """The points, each marked whether another one dominates it."""
    return [
        dataclasses.replace(point, front=not any(_dominates(other.costs, point.costs) for other in points))
        for point in points
    ]


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def _point(gemms: Sequence[Gemm], chip: Chip, board: Board, area: Area) -> SweepPoint:
    times = [time_of(gemm, chip, board) for gemm in gemms]
    energy = ArrayEnergy(0.0, 0.0, 0.0, 0.0)
    for gemm, time in zip(gemms, times, strict=True):
        energy += energy_of(gemm, chip, board, time)
    seconds = sum(time.cycles + 1 for time in times) / board.hertz
    bound = sum(time.memory_bound for time in times)
    return SweepPoint(chip.name, board.bandwidth, seconds, energy.value, array_gates(chip, area), bound)
