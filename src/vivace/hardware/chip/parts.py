"""The parts that designs are made for: what each holds, and how the tools are told of it."""

from __future__ import annotations

import dataclasses

from vivace.core.errors import UsageError, unknown_name
from vivace.hardware.chip.tpus import TPUS


@dataclasses.dataclass(frozen=True)
class Part:
    """A part. `multipliers` are 18 x 18 (0: products are made of logic), `memory_blocks` of `memory_bits` each.

    `options` tell nextpnr the part. `standby_watts` is an assumption of the energy model, not a data-sheet value.
    """

    name: str
    family: str
    cells: int
    multipliers: int
    memory_blocks: int
    memory_bits: int
    options: tuple[str, ...]
    standby_watts: float

    @property
    def has_multipliers(self) -> bool:
        """Whether products go to hard multipliers."""
        return self.multipliers > 0


_ECP5 = ("--package", "CABGA381", "--speed", "6")
# cells, multipliers and memory blocks: "available" in the report of nextpnr 0.11 for the part
PARTS = {
    "ecp5-25k": Part("ecp5-25k", "ecp5", 24288, 28, 56, 18432, ("--25k", *_ECP5), 0.08),
    "ecp5-45k": Part("ecp5-45k", "ecp5", 43848, 72, 108, 18432, ("--45k", *_ECP5), 0.12),
    "ecp5-85k": Part("ecp5-85k", "ecp5", 83640, 156, 208, 18432, ("--85k", *_ECP5), 0.22),
    "ice40-hx8k": Part("ice40-hx8k", "ice40", 7680, 0, 32, 4096, ("--hx8k", "--package", "ct256"), 0.002),
}


ARRAYS = "asic:ROWSxCOLUMNS[:os|ws|is][:2of4]"
"""How systolic arrays are named, for who names none (`hardware.array.chip`)."""


def part(name: str) -> Part:
    """A part by its name. Raises UsageError with the nearest names, and how the chips without one are written.

    >>> part("ecp5-85k").multipliers
    156
    """
    if name not in PARTS:
        raise unknown_chip(name)
    return PARTS[name]


def unknown_chip(name: str) -> UsageError:
    """The error for a chip that is of no kind, with the nearest names and all that there are.

    >>> str(unknown_chip("tpu-v5x")).partition("Known: ")[2]  # doctest: +ELLIPSIS
    'asic:ROWSxCOLUMNS[:os|ws|is][:2of4], ecp5-25k, ...'
    """
    return unknown_name("chip", name, [*PARTS, *TPUS, ARRAYS])
