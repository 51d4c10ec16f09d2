"""How lines and tables are laid out: no boxes, so that they can be pasted; long lines wrap or end with an ellipsis."""

from __future__ import annotations

import dataclasses
import textwrap

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

BELOW = "      "
"""What a reason is set in by where it goes on below its name."""


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


@dataclasses.dataclass(frozen=True)
class Reasoned:
    """A name after a `head`, and a reason, so that neither hides the other: a name that is too long for its line ends
    with an ellipsis, and the reason goes on below, on at most so many lines in all (None: on as many as it takes)."""

    head: str
    name: str
    reason: str
    lines: int | None = 2

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, reason = options.max_width, " ".join(self.reason.split())
        room = max(width - len(self.head) - len(":"), 1)
        name = self.name if len(self.name) <= room else f"{self.name[: room - 1]}…"
        text = f"{self.head}{name}: {reason}" if reason else f"{self.head}{name}"
        yield Text("\n".join(self._wrapped(text, width)))

    def _wrapped(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(
            text, width, subsequent_indent=BELOW, break_on_hyphens=False, max_lines=self.lines, placeholder=" …"
        )
