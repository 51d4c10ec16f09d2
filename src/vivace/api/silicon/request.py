"""What a synthesis for an FPGA was asked for, checked."""

from __future__ import annotations

import dataclasses
import math

from vivace.api.request import choice
from vivace.core.errors import UsageError
from vivace.core.quality import Budget, Gate
from vivace.core.workload import Workload
from vivace.devices.machine import cores_here
from vivace.hardware.chip.parts import Part
from vivace.hardware.chip.parts import part as part_named
from vivace.hardware.chip.place import cells_within
from vivace.hardware.graph.quantize import Precision
from vivace.report.duration import parse_duration

SHORTEST_SECONDS = 20.0
LONGEST_TOOL_SECONDS = 300.0
PLACING_SHARE = 0.29
"""Of the whole time, for placing and routing all seeds."""


@dataclasses.dataclass(frozen=True)
class Request:
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
    longest_placing: float
    unroll: tuple[str, ...] = ()

    @property
    def deadline(self) -> float:
        """Seconds after which a tool is taken to hang: the first run of each compiles it, which takes a minute."""
        return max(LONGEST_TOOL_SECONDS, self.seconds)

    @property
    def rounds(self) -> int:
        """Placings one after the other, with as many at a time as there are cores."""
        return math.ceil(self.seeds / cores_here())

    @property
    def most_cells(self) -> int | None:
        """The most cells whose placing fits into its share of the time and is not refused; None where none is asked."""
        allowed = min(PLACING_SHARE * self.seconds, self.longest_placing)
        return cells_within(allowed / self.rounds) if self.placing else None


def checked(
    work: Workload, chip: str, budget: Budget, gate: str, precision: Precision, time: str | float, seeds: int,
    vectors: int, cycles: int | None, placing: bool, longest_placing: str | float, unroll: tuple[str, ...],
) -> Request:  # fmt: skip
    """The request. Raises UsageError for what cannot be used, with what is allowed."""
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
    longest = parse_duration(longest_placing)
    return Request(
        part_named(chip), budget, chosen, precision, seconds, seeds, vectors, cycles, placing, longest, unroll
    )
