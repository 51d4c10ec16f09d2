"""What a figure is: drawings, words, what was counted and how, and a table of its numbers for who cannot see it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from markupsafe import Markup

MOST_ROWS = 500


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell: its text, and the number that it is sorted by where it is one."""

    text: str
    value: float | None = None
    code: str = ""
    """Text that is shown when it is asked for, such as a command."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Columns and rows; a row is a text or a Cell for each column. `more` counts rows that were left out."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    more: int = 0

    def is_number(self, column: int) -> bool:
        """Whether a column holds numbers, which stand at its right."""
        return any(row[column].value is not None for row in self.rows)


def table(columns: tuple[str, ...], rows: Sequence[tuple[str | Cell, ...]], caption: str = "") -> Table:
    """A table of at most MOST_ROWS rows; plain texts become cells."""
    kept = tuple(tuple(c if isinstance(c, Cell) else Cell(c) for c in row) for row in rows[:MOST_ROWS])
    return Table(columns, kept, caption, max(0, len(rows) - MOST_ROWS))


@dataclasses.dataclass(frozen=True)
class Figure:
    """One figure. `said` is what it shows in words, or why there is nothing to draw; `counted` is n, `method` how the
    numbers came to be, `units` what they are in, with MEASURED, SIMULATED or PREDICTED. Tables that are `is_sorted`
    stand open and sort by a click, with a `hint` below."""

    number: int
    key: str
    title: str
    said: str
    drawings: tuple[Markup, ...] = ()
    counted: str = ""
    method: str = ""
    units: str = ""
    tables: tuple[Table, ...] = ()
    is_wide: bool = False
    is_sorted: bool = False
    hint: str = ""


def absent(number: int, key: str, title: str, why: str) -> Figure:
    """A figure of what was not measured: one sentence says why."""
    return Figure(number, key, title, why)
