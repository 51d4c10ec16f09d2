"""How a batch gets into a step's memory: rows of tables, copied, or in bfloat16 where only products in it read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vivace.codegen.arrays import Read
from vivace.codegen.lowering import Rounded
from vivace.codegen.products import SHORT
from vivace.codegen.statements import SIMD, Statement, rows_of
from vivace.training.native.leaves import Leaf

AHEAD = 8
"""Rows that are fetched before the one that is copied: they lie anywhere in memory, and no processor foresees where."""


def fed(
    rows: int, leaves: Sequence[Leaf], rounded: Mapping[str, Rounded], statements: Sequence[Statement], threads: int
) -> tuple[list[Statement], tuple[int, ...]]:
    """The statements of a step, with those that take batches of so many rows from tables, where it is given tables;
    and the numbers of the tensors that are taken from a table in bfloat16, where there is one. `leaves` are the tensors
    of a batch, `rounded` the copies in bfloat16 that are made."""
    found, copies, narrow = list(statements), list[Statement](), list[int]()
    for number, leaf in enumerate(leaves):
        if not leaf.shape or leaf.shape[0] != rows:
            continue
        name, copy = f"x{number}", rounded.get(f"x{number}")
        readers = [one for one in found if any(read.name == name for read in one.reads)]
        if copy is not None and readers == [copy.statement] and copy.source.shape == leaf.matrix:
            found[found.index(copy.statement)] = _rounded(number, leaf, copy, threads)
            narrow.append(number)
        else:
            copies.append(_copied(number, leaf, threads))
    return [*copies, *found], tuple(narrow)


def _copied(number: int, leaf: Leaf, threads: int) -> Statement:
    """Rows of a table into the batch's memory."""
    rows, size = leaf.matrix
    each = f"__builtin_memcpy(batch{number} + i*{size}, row, {size} * sizeof({leaf.kind}));"
    text = f"  if (order) {{ {rows_of(rows, threads)}\n    {_walk(f'column{number}', leaf, leaf.kind, each)} }}"
    return Statement(text, (), (Read(f"x{number}", rows if rows > 1 else None, size),))


def _rounded(number: int, leaf: Leaf, copy: Rounded, threads: int) -> Statement:
    """Rows of a table in bfloat16, of one that is not, or of the batch, into the copy."""
    (rows, size), to = leaf.matrix, copy.to
    place = f"{to.name} + i*{to.strides[0]}"
    ready = f"__builtin_memcpy({place}, row, {size} * sizeof(short));"
    each = f"{SIMD}for (long c = 0; c < {size}; c++) ({place})[c] = narrow(row[c]);"
    text = (
        f"  {{ {rows_of(rows, threads)}\n    if (order && narrow{number}) "
        f"{_walk(f'narrow{number}', leaf, SHORT, ready)}\n"
        f"    else {_walk(f'column{number}', leaf, leaf.kind, each)} }}"
    )
    return Statement(text, (), copy.statement.writes)


def _walk(table: str, leaf: Leaf, kind: str, each: str) -> str:
    """C that does `each` with every `row` of a thread's own in a table of this kind."""
    rows, size = leaf.matrix
    return (
        f"for (long i = from; i < to; i++) {{\n"
        f"      const {kind} *row = {table} + (order ? order[s*{rows} + i] : i)*{size};\n"
        f"      if (order && i + {AHEAD} < to) "
        f"fetch({table} + order[s*{rows} + i + {AHEAD}]*{size}, {size} * sizeof({kind}));\n"
        f"      {each} }}"
    )
