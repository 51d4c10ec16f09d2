"""What a layer waits for memory: bytes of each tile over the bandwidth, against the cycles of the tile before it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from vivace.core.errors import UsageError
from vivace.hardware.array.chip import Chip, Dataflow
from vivace.hardware.array.cycles import Gemm, Walk, compute_cycles, tile_cycles, utilization, walk_of
from vivace.hardware.array.sparse import storage_bits

Bytes = np.ndarray[Any, np.dtype[np.float64]]


@dataclasses.dataclass(frozen=True)
class Board:
    """What is around the array: its clock in Hz, the memory's bandwidth in bytes a second, and the bytes on the chip.

    These are the user's to say; the defaults are those of a small accelerator with one channel of DDR4.
    """

    hertz: float = 500e6
    bandwidth: float = 16e9
    buffer_bytes: float = 1 << 20

    def __post_init__(self) -> None:
        for label, unit, number in (
            ("clock", "Hz (--clock in MHz)", self.hertz),
            ("bandwidth", "bytes a second (--bandwidth in GB/s)", self.bandwidth),
            ("buffer", "bytes (--buffer in KiB)", self.buffer_bytes),
        ):
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 < number < math.inf:
                raise UsageError(f"the {label} of a chip is {number!r} {unit}; allowed is a number above 0")


USUAL = Board()


@dataclasses.dataclass(frozen=True)
class LayerTime:
    """A layer on the array: cycles without and with waiting, bytes to and from memory, and whether memory is the limit.

    `utilization` is the share of the array's multiplications that are the layer's own.
    """

    compute_cycles: int
    cycles: float
    bytes: float
    memory_bound: bool
    utilization: float

    @property
    def stall_cycles(self) -> float:
        """Cycles in which the array waits."""
        return self.cycles - self.compute_cycles


def time_of(gemm: Gemm, chip: Chip, board: Board) -> LayerTime:
    """A layer's time with double buffers: what a tile needs comes while the one before it computes.

    Activations that fit into the buffer (inputs and outputs together) stay there between layers and cost no traffic;
    weights come once where they fit beside them, and otherwise whenever a tile needs them. Sums wait in accumulators of
    their own. Tiles are taken in the order of the simulated array.

    >>> time_of(Gemm(8, 1024, 1024), Chip(32, 32), Board(bandwidth=1e9)).memory_bound
    True
    """
    fetched, written = _traffic(gemm, chip, board)
    each = board.bandwidth / board.hertz
    period = tile_cycles(gemm, chip)
    loads = np.concatenate([fetched, [0.0]]) / each
    writes = np.concatenate([[0.0], written]) / each
    moved = loads[1:] + writes[:-1]  # during a tile: the next one's operands, and the results of the one before
    stalls = float(loads[0] + np.maximum(moved - period, 0).sum() + writes[-1])
    compute = compute_cycles(gemm, chip)
    cycles = compute + stalls
    total = float(fetched.sum() + written.sum())
    return LayerTime(compute, cycles, total, total / each > compute + 1, utilization(gemm, chip, cycles))


def activation_bytes(gemm: Gemm) -> int:
    """Inputs and outputs of a layer, a byte each, as the array takes them."""
    return gemm.groups * gemm.rows * (gemm.depth + gemm.columns)


def weight_bytes(gemm: Gemm, chip: Chip) -> float:
    """Weights of a layer as they are stored for this chip."""
    return gemm.groups * storage_bits(gemm.depth, gemm.columns, gemm.sparse and chip.sparse) / 8


def accumulator_bytes(gemm: Gemm, chip: Chip) -> int:
    """What the sums of one column of tiles take, 4 bytes each: none where the outputs rest in the array."""
    return 0 if chip.dataflow is Dataflow.OUTPUT else 4 * walk_of(gemm, chip).steps * chip.columns


def _traffic(gemm: Gemm, chip: Chip, board: Board) -> tuple[Bytes, Bytes]:
    """Bytes that each tile reads from memory, and writes to it, over all groups in order."""
    walk = walk_of(gemm, chip)
    down, right = _sizes(walk.down, chip.rows), _sizes(walk.right, chip.columns)
    resident = activation_bytes(gemm) <= board.buffer_bytes
    left = board.buffer_bytes - (activation_bytes(gemm) if resident else 0)
    kept = weight_bytes(gemm, chip) <= left
    weights, activations, outputs = _tile_bytes(gemm, chip, walk, down, right)
    if kept:
        weights = _once(weights, chip.dataflow)
    if resident:
        activations, outputs = np.zeros_like(activations), np.zeros_like(outputs)
    # the columns of tiles one after the other, and down within each
    fetched, written = (weights + activations).T.ravel(), outputs.T.ravel()
    return np.tile(fetched, gemm.groups), np.tile(written, gemm.groups)


def _sizes(length: int, side: int) -> Bytes:
    """How much of each block is used: whole sides, and a rest."""
    blocks = -(-length // side)
    sizes = np.full(blocks, float(side))
    sizes[-1] = length - side * (blocks - 1)
    return sizes


def _tile_bytes(gemm: Gemm, chip: Chip, walk: Walk, down: Bytes, right: Bytes) -> tuple[Bytes, Bytes, Bytes]:
    """Weights, activations and finished outputs of each tile [down, right], a byte each."""
    half = gemm.sparse and chip.sparse
    value = 10 / 8 if half else 1.0  # a kept weight with its index
    dense = 2.0 if half else 1.0  # activations for each step of the depth
    row, column, none = down[:, None], right[None, :], np.zeros((len(down), len(right)))
    match chip.dataflow:
        case Dataflow.OUTPUT:
            steps = float(walk.steps)
            return none + value * steps * column, none + dense * steps * row, row * column
        case Dataflow.WEIGHT:
            outputs = none.copy()
            outputs[-1] = walk.steps * right
            return value * row * column, none + dense * walk.steps * row, outputs
        case Dataflow.INPUT:
            outputs = none.copy()
            outputs[-1] = walk.steps * right
            return none + value * walk.steps * row, dense * row * column, outputs


def _once(weights: Bytes, dataflow: Dataflow) -> Bytes:
    """Weights that stay on the chip after the first tile that uses them."""
    first = np.zeros_like(weights)
    match dataflow:
        case Dataflow.WEIGHT:
            return weights
        case Dataflow.OUTPUT:
            first[0] = weights[0]
        case Dataflow.INPUT:
            first[:, 0] = weights[:, 0]
    return first
