"""Statements of a program in C: what all threads do, each its part, and where they must wait for each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from vivace.codegen.arrays import Array, Read, Value

Part = tuple[int, int] | None
ALIGNED = 8
"""Rows that a thread takes begin at a multiple of this, where there are enough, so that blocks of products fit."""


@dataclasses.dataclass(frozen=True)
class Statement:
    """C that every thread runs, with what it reads and writes. `after` is run as soon as rows `from` to `to` of what
    it writes are there, where the statement has a place for it (`$AFTER` in its text)."""

    text: str
    reads: tuple[Read, ...]
    writes: tuple[Read, ...]
    rows: int = 0
    """What `$ROWS` in its text divides among threads."""

    def followed_by(self, other: Statement) -> Statement:
        """This one with another one done row by row in its place for that."""
        text = self.text.replace(AFTER, other.text.replace(ROWS, ""))
        return Statement(text, (*self.reads, *other.reads), (*self.writes, *other.writes))

    def alone(self, threads: int) -> Statement:
        """This one with its rows divided, and nothing after them."""
        return dataclasses.replace(self, text=self.text.replace(AFTER, "").replace(ROWS, rows_of(self.rows, threads)))


SIMD = '_Pragma("omp simd") '
BARRIER = "barrier();"
AFTER, ROWS = "$AFTER", "$ROWS"
"""In a statement's text: where rows `from` to `to` are done; and where these are defined, if nobody else does."""


def share(rows: int, threads: int) -> int:
    """How many rows each thread takes; the last ones may have fewer.

    >>> share(128, 2), share(10, 2), share(41, 4)
    (64, 5, 16)
    """
    each = -(-rows // threads)
    return -(-each // ALIGNED) * ALIGNED if rows >= ALIGNED * threads else each


def shares(rows: int, threads: int) -> list[int]:
    """How many rows the threads take, one after the other.

    >>> shares(41, 4)
    [16, 16, 9, 0]
    """
    each = share(rows, threads)
    return [max(0, min(each, rows - thread * each)) for thread in range(threads)]


def rows_of(rows: int, threads: int) -> str:
    """C that defines the rows `from` to `to` of thread t.

    >>> rows_of(128, 2)
    'const long from = MIN(t*64, 128), to = MIN(from + 64, 128);'
    """
    each = share(rows, threads)
    return f"const long from = MIN(t*{each}, {rows}), to = MIN(from + {each}, {rows});"


def scheduled(statements: Iterable[Statement], threads: int) -> list[str]:
    """The statements' text with a barrier before each that depends on what another thread does, and one at the end."""
    lines: list[str] = []
    written: dict[str, Part] = {}
    read: dict[str, set[Part]] = {}
    for one in statements:
        if threads > 1 and _must_wait(one, written, read):
            lines.append(f"  {BARRIER}")
            written.clear()
            read.clear()
        for each in one.reads:
            read.setdefault(each.name, set()).add(each.part)
        written |= {each.name: each.part for each in one.writes}
        lines.append(one.alone(threads).text)
    return [*lines, *([f"  {BARRIER}"] if threads > 1 else [])]


def alone_on(one: Statement, thread: int) -> Statement:
    """A statement, written for one thread, that a thread of several does alone: the others do not wait for it until
    they need what it writes.

    >>> alone_on(Statement("  a[t] = 1;", (), (Read("a", 4),)), 1).text.split()[:3]
    ['if', '(t', '==']
    """
    text = f"  if (t == {thread}) {{ const long t = 0; (void)t;\n{one.alone(1).text}\n  }}"
    reads, writes = (tuple(Read(each.name, -1 - thread) for each in all_) for all_ in (one.reads, one.writes))
    return Statement(text, reads, writes)


def _must_wait(one: Statement, written: dict[str, Part], read: dict[str, set[Part]]) -> bool:
    def differs(each: Read) -> bool:
        return each.name in written and (each.part is None or written[each.name] != each.part)

    def is_read(each: Read) -> bool:
        return bool(read.get(each.name, set()) - ({each.part} if each.part is not None else set()))

    return any(map(differs, one.reads)) or any(differs(each) or is_read(each) for each in one.writes)


def merged_updates(
    statements: Sequence[Statement], updates: Sequence[Statement], whose: Sequence[str]
) -> list[Statement]:
    """All statements, then the updates; an update whose gradient (`whose`) is made row by row, in the rows of the
    parameter, and whose parameter nobody reads afterwards, is done with the rows that were just made, while they are
    in the cache."""
    found, left = list(statements), list[Statement]()
    for update, gradient in zip(updates, whose, strict=True):
        place = next((n for n, one in enumerate(found) if any(w.name == gradient for w in one.writes)), None)
        names = {each.name for each in update.writes}
        own = _part(update.reads, gradient)
        is_free = (
            place is not None
            and own is not None
            and own == _part(found[place].writes, gradient)
            and AFTER in found[place].text
            and not any(each.name in names for one in found[place:] for each in one.reads)
        )
        if is_free and place is not None:
            found[place] = found[place].followed_by(update)
        else:
            left.append(update)
    return [*found, *left]


def _part(reads: Sequence[Read], name: str) -> Part:
    """Which rows of an array are each thread's own."""
    return next((each.part for each in reads if each.name == name), None)


def loop(array: Array, value: Value, threads: int) -> Statement:
    """Every element of an array set to a value's, its rows divided among threads."""
    index = array.index
    outer = array.outer
    if outer is None:
        text = f"  if (t == 0) {{ {array.at(index)} = {value.at(index)}; }}"
        return Statement(text, value.reads(index), (Read(array.name, None),))
    head = walked(array, "    ")
    lines = [f"  {{ {rows_of(array.shape[outer], threads)}", *head, f"      {array.at(index)} = {value.at(index)}; }}"]
    return Statement("\n".join(lines), value.reads(index), (array.divided(),))


def walked(array: Array, indent: str = "") -> list[str]:
    """C that walks an array's elements as they lie, a thread its rows `from` to `to`."""
    axes = [axis for axis in array.order if array.shape[axis] > 1]
    lines = []
    for number, axis in enumerate(axes):
        pragma = SIMD if number == len(axes) - 1 else ""
        first, end = ("from", "to") if number == 0 else ("0", str(array.shape[axis]))
        lines.append(f"{indent}{pragma}for (long i{number} = {first}; i{number} < {end}; i{number}++)")
    return lines
