"""Energy by a stated model. No open tool measures what a part draws, so the result is PREDICTED, with a wide band."""

from __future__ import annotations

import dataclasses

from vivace.hardware.chip.parts import Part
from vivace.hardware.chip.place import Resources

BAND = 3.0
"""The truth is taken to lie between the value divided by this and times this."""
TABLE_PICOJOULES = 0.10
"""A table with its wires, an average cycle (12.5% of them switch)."""
FLIP_FLOP_PICOJOULES = 0.05
"""A flip-flop with its share of the clock, an average cycle."""
MULTIPLIER_PICOJOULES = 4.0
"""An 18 x 18 multiplier with 8-bit operands, each cycle."""
MEMORY_PICOJOULES = 5.0
"""A memory block that is read, each cycle."""
MODEL = (
    "static power of the part (assumed) times the time of a sample, plus, for each cycle, 0.10 pJ a table, 0.05 a "
    "flip-flop, 4 a multiplier, 5 a memory block: assumptions for 40 nm, measured on no board"
)


@dataclasses.dataclass(frozen=True)
class Energy:
    """Joules of one sample: PREDICTED, from `low` to `high`; `static` is the share that flows without any work."""

    value: float
    low: float
    high: float
    static: float


def energy_of(part: Part, resources: Resources, cycles: float, megahertz: float) -> Energy:
    """The energy of one sample when samples follow each other every `cycles`."""
    seconds = cycles / (megahertz * 1e6)
    static = part.standby_watts * seconds
    each = (
        resources.tables * TABLE_PICOJOULES
        + resources.flip_flops * FLIP_FLOP_PICOJOULES
        + resources.multipliers * MULTIPLIER_PICOJOULES
        + resources.memory_blocks * MEMORY_PICOJOULES
    )
    value = static + each * 1e-12 * cycles
    return Energy(value, value / BAND, value * BAND, static)
