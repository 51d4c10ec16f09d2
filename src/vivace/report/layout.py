"""How lines and tables are laid out: no boxes, so that they can be pasted; long lines wrap or end with an ellipsis."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text


def plain_table(*columns: str, giving: str = "") -> Table:
    """A table without boxes whose cells do not wrap, but for those of the column `giving`: that one gives way where all
    are too wide, so that the numbers beside it stay whole."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=column != giving, overflow="fold" if column == giving else "ellipsis")
    return table


def line(text: str) -> Text:
    """A line that wraps where it is too long."""
    return Text(text)


def short(text: str) -> Text:
    """A line that ends with an ellipsis where it is too long."""
    return Text(text, no_wrap=True, overflow="ellipsis")
