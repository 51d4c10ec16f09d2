"""Cycles of a matrix product on a systolic array, in closed form.

The number is that of the array's last product, where the first operand goes in at cycle 0, as SCALE-Sim counts
(Samajdar et al., arXiv 1811.02883). Tiles follow each other without overlap: each fills the array and runs it empty.
The RTL of `verilog` takes exactly these cycles.
"""

from __future__ import annotations

import dataclasses

from vivace.core.errors import UsageError
from vivace.hardware.array.chip import Chip, Dataflow


@dataclasses.dataclass(frozen=True)
class Gemm:
    """A product of [rows, depth] activations with [depth, columns] weights; `groups` of them, one after the other.

    `sparse`: of every four weights along the depth at most two are not zero.
    """

    rows: int
    columns: int
    depth: int
    groups: int = 1
    sparse: bool = False

    def __post_init__(self) -> None:
        for label, size in zip(("M", "N", "K", "groups"), self.sizes, strict=True):
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise UsageError(f"{label} of a matrix product is {size!r}; allowed are whole numbers, 1 or more")

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """M, N, K and groups."""
        return self.rows, self.columns, self.depth, self.groups

    @property
    def products(self) -> int:
        """Multiplications of the dense layer."""
        return self.rows * self.columns * self.depth * self.groups

    def steps(self, chip: Chip) -> int:
        """The depth as the array walks it: half of it, in whole groups of four, where it skips zeros.

        >>> Gemm(1, 1, 10, sparse=True).steps(Chip(4, 4, sparse=True))
        6
        """
        return 2 * -(-self.depth // 4) if self.sparse and chip.sparse else self.depth


@dataclasses.dataclass(frozen=True)
class Walk:
    """How a chip walks one group of a product: tiles over `down` and `right` (what lies along its rows and its
    columns), with `steps` operands that pass through each tile."""

    down: int
    right: int
    steps: int


def walk_of(gemm: Gemm, chip: Chip) -> Walk:
    """What lies along the array's sides, and what passes."""
    depth = gemm.steps(chip)
    match chip.dataflow:
        case Dataflow.OUTPUT:
            return Walk(gemm.rows, gemm.columns, depth)
        case Dataflow.WEIGHT:
            return Walk(depth, gemm.columns, gemm.rows)
        case Dataflow.INPUT:
            return Walk(depth, gemm.rows, gemm.columns)


def tiles(gemm: Gemm, chip: Chip) -> int:
    """How often the array is filled, over all groups."""
    walk = walk_of(gemm, chip)
    return -(-walk.down // chip.rows) * -(-walk.right // chip.columns) * gemm.groups


def tile_cycles(gemm: Gemm, chip: Chip) -> int:
    """Cycles of one tile: loading what rests (not with outputs at rest), the passing operands, running empty.

    >>> tile_cycles(Gemm(64, 64, 64), Chip(32, 32, Dataflow.OUTPUT))
    126
    """
    resting = 0 if chip.dataflow is Dataflow.OUTPUT else chip.rows
    return resting + chip.rows + chip.columns + walk_of(gemm, chip).steps - 2


def compute_cycles(gemm: Gemm, chip: Chip) -> int:
    """The number of the last product's cycle, without any waiting for memory.

    >>> compute_cycles(Gemm(197, 768, 768), Chip(32, 32, Dataflow.WEIGHT))
    167615
    """
    return tiles(gemm, chip) * tile_cycles(gemm, chip) - 1


def utilization(gemm: Gemm, chip: Chip, cycles: float) -> float:
    """Multiplications of the layer (with 2:4 those that are kept) over what the array could do in these cycles."""
    return gemm.rows * gemm.columns * gemm.steps(chip) * gemm.groups / (chip.elements * (cycles + 1))
