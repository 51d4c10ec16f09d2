"""What a user asks for: asic:ROWSxCOLUMNS[:os|ws|is][:2of4], and what it means."""

from __future__ import annotations

import dataclasses
import re
from enum import Enum

from vivace.core.errors import UsageError

PREFIX = "asic:"
MOST_SIDE = 1024
_TEXT = re.compile(r"asic:(?P<rows>\d{1,6})x(?P<columns>\d{1,6})(?::(?P<dataflow>os|ws|is))?(?P<sparse>:2of4)?")


class Dataflow(Enum):
    """Which operand rests in the array. The value is the word in a chip's name."""

    OUTPUT = "os"
    WEIGHT = "ws"
    INPUT = "is"


@dataclasses.dataclass(frozen=True)
class Chip:
    """A systolic array of `rows` x `columns` elements; `sparse`: weights of which 2 of 4 are kept, with an index."""

    rows: int
    columns: int
    dataflow: Dataflow = Dataflow.WEIGHT
    sparse: bool = False

    @property
    def name(self) -> str:
        """As a user writes it.

        >>> Chip(16, 8, Dataflow.OUTPUT, sparse=True).name
        'asic:16x8:os:2of4'
        """
        return f"{PREFIX}{self.rows}x{self.columns}:{self.dataflow.value}" + (":2of4" if self.sparse else "")

    @property
    def elements(self) -> int:
        """Multiplications that it can do in a cycle."""
        return self.rows * self.columns


def is_array(text: str) -> bool:
    """Whether a chip's name asks for an array, rightly or wrongly written."""
    return isinstance(text, str) and text.lower().startswith("asic")


def chip_of(text: str) -> Chip:
    """Read a chip's name. Raises UsageError with what is allowed.

    >>> chip_of("asic:16x16")
    Chip(rows=16, columns=16, dataflow=<Dataflow.WEIGHT: 'ws'>, sparse=False)
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        raise UsageError(
            f"chip (--chip, --on) is {text!r}; allowed is asic:ROWSxCOLUMNS[:os|ws|is][:2of4], such as asic:16x16 or "
            "asic:32x32:os:2of4: os, ws (the default) or is says whether outputs, weights or inputs rest in the array"
        )
    rows, columns = int(match["rows"]), int(match["columns"])
    if not (1 <= rows <= MOST_SIDE and 1 <= columns <= MOST_SIDE):
        raise UsageError(
            f"chip (--chip, --on) is {text!r}; allowed are 1 to {MOST_SIDE} rows and columns, and {rows} x {columns} "
            "were asked for"
        )
    return Chip(rows, columns, Dataflow(match["dataflow"] or "ws"), match["sparse"] is not None)
