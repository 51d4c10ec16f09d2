"""Energy of a layer on the array, from a published table: PREDICTED.

Horowitz, "Computing's energy problem", ISSCC 2014, at 45 nm and 0.9 V. The registers and the clock of an element are
not in that table: they are an assumption, what a timing tool gave for this element in a 180 nm library, scaled.
"""

from __future__ import annotations

import dataclasses
import math

from vivace.hardware.array.chip import Chip, Dataflow
from vivace.hardware.array.cycles import Gemm, walk_of
from vivace.hardware.array.memory import Board, LayerTime
from vivace.hardware.array.verilog import lane_bits

BAND = 2.0
"""The truth is taken to lie between the value divided by this and times this."""
MULTIPLY_8, ADD_32 = 0.2, 0.1
"""Picojoules of an 8-bit product and of a 32-bit sum."""
ELEMENT_CYCLE = 1.2
"""Picojoules of an element's registers and clock, each cycle, busy or not: an assumption."""
SRAM_64_BITS = ((8 << 10, 10.0), (32 << 10, 20.0), (1 << 20, 100.0))
"""Bytes of a memory on the chip, and picojoules to read 64 bits of it."""
DRAM_64_BITS = 2000.0
"""Picojoules; the table gives 1300 to 2600."""
TABLE_NANOMETRES, TABLE_VOLTS = 45.0, 0.9
MODEL = (
    "45 nm, 0.9 V (Horowitz, ISSCC 2014): 0.2 pJ a product, 0.1 a sum, 10 to 100 pJ for 64 bits from a memory on the "
    "chip by its size, 2 nJ from DRAM; assumed: 1.2 pJ an element and cycle for registers and clock. Right to within a "
    "factor of 2 at best; nothing was measured"
)


@dataclasses.dataclass(frozen=True)
class ArrayEnergy:
    """Joules, PREDICTED: the sum and its parts."""

    arithmetic: float
    registers: float
    buffers: float
    memory: float

    @property
    def value(self) -> float:
        """All parts together."""
        return self.arithmetic + self.registers + self.buffers + self.memory

    def __add__(self, other: ArrayEnergy) -> ArrayEnergy:
        return ArrayEnergy(
            self.arithmetic + other.arithmetic, self.registers + other.registers, self.buffers + other.buffers,
            self.memory + other.memory,
        )  # fmt: skip


def energy_of(gemm: Gemm, chip: Chip, board: Board, time: LayerTime) -> ArrayEnergy:
    """The energy of one layer, for the batch that its product stands for."""
    done = gemm.rows * gemm.columns * gemm.steps(chip) * gemm.groups
    return ArrayEnergy(
        done * (MULTIPLY_8 + ADD_32) * 1e-12,
        chip.elements * (time.cycles + 1) * ELEMENT_CYCLE * 1e-12,
        _buffer_bytes(gemm, chip) * sram_byte(board.buffer_bytes) * 1e-12,
        time.bytes * DRAM_64_BITS / 8 * 1e-12,
    )


def sram_byte(size: float) -> float:
    """Picojoules to read or write a byte of a memory of so many bytes: between the table's sizes, and beyond them, by
    the power law through the two nearest.

    >>> sram_byte(8 << 10), sram_byte(1 << 20)
    (1.25, 12.5)
    """
    (one, low), (other, high) = SRAM_64_BITS[:2] if size <= SRAM_64_BITS[1][0] else SRAM_64_BITS[1:]
    slope: float = math.log(high / low) / math.log(other / one)
    return round(float(low * (size / one) ** slope) / 8, 12)


def scaled(joules: float, nanometres: float, volts: float) -> float:
    """An energy of the table in another process: by length and the square of the voltage, which is an estimate.

    >>> scaled(1.0, 22.5, 0.9)
    0.5
    """
    return joules * nanometres / TABLE_NANOMETRES * (volts / TABLE_VOLTS) ** 2


def _buffer_bytes(gemm: Gemm, chip: Chip) -> float:
    """Bytes between the array and the memories on the chip: operands of each tile, sums out, and in again."""
    walk = walk_of(gemm, chip)
    moving, resting = lane_bits(chip)
    across = -(-walk.right // chip.columns) * walk.down * walk.steps * moving / 8
    down = -(-walk.down // chip.rows)
    if chip.dataflow is Dataflow.OUTPUT:
        return gemm.groups * (across + down * walk.right * walk.steps * resting / 8 + 4 * walk.down * walk.right)
    loaded = walk.down * walk.right * resting / 8
    return gemm.groups * (across + loaded + 4 * (2 * down - 1) * walk.right * walk.steps)
