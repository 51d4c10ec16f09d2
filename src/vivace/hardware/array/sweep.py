"""Other arrays for the same network: sizes, dataflows, sparsity and bandwidth, and which of them nothing beats."""

from __future__ import annotations

import dataclasses
from collections import Counter as Tally
from collections.abc import Iterable, Mapping, Sequence

from vivace.hardware.array.area import Area, array_gates
from vivace.hardware.array.chip import Chip, Dataflow
from vivace.hardware.array.cycles import Gemm
from vivace.hardware.array.energy import energy_of
from vivace.hardware.array.memory import Board, time_of

SIDES = (8, 16, 32, 64, 128)
SHARES = (0.25, 1.0, 4.0)
"""Of the bandwidth that the user said."""


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


def squares(kinds: Iterable[tuple[Dataflow, bool]]) -> list[Chip]:
    """Square arrays of every size for every kind: its dataflow, and whether it skips zeros."""
    return [Chip(side, side, flow, sparse) for side in SIDES for flow, sparse in kinds]


def sweep(
    gemms: Sequence[Gemm], board: Board, areas: Mapping[tuple[Dataflow, bool], Area], chips: Sequence[Chip] = (),
    bandwidths: Sequence[float] = (),
) -> tuple[SweepPoint, ...]:  # fmt: skip
    """Every chip at each bandwidth, by bandwidth, fastest first.

    Without chips, squares of every size for each element whose area is known; without bandwidths (bytes a second), a
    quarter, once and four times the board's.
    """
    points: list[SweepPoint] = []
    for bandwidth in bandwidths or [board.bandwidth * share for share in SHARES]:
        around = dataclasses.replace(board, bandwidth=bandwidth)
        tried = chips or squares(areas)
        found = [_point(gemms, chip, around, areas[chip.dataflow, chip.sparse]) for chip in tried]
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
    cycles, joules, bound = 0.0, 0.0, 0
    for gemm, count in Tally(gemms).items():
        time = time_of(gemm, chip, board)
        cycles += count * (time.cycles + 1)
        joules += count * energy_of(gemm, chip, board, time).value
        bound += count * time.memory_bound
    return SweepPoint(chip.name, board.bandwidth, cycles / board.hertz, joules, array_gates(chip, area), bound)
