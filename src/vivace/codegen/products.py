"""Matrix products of a step as statements: which micro-kernel, how operands must lie, and which thread takes what."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from vivace.codegen.arrays import Array, Read
from vivace.codegen.statements import AFTER, ALIGNED, Statement, rows_of, shares
from vivace.codegen.tiles import Vector

SHORT, INT = "short", "int"
"""Kinds of arrays of bfloat16: one after the other, and in pairs of neighbouring k."""


@dataclasses.dataclass(frozen=True)
class Product:
    """c[m, n] = sum over k of a[m, k] b[k, n] (+ bias[n]). `narrow`: a and b are rounded to bfloat16, sums are not."""

    c: Array
    a: Array
    b: Array
    bias: Array | None
    narrow: bool
    weight_is_b: bool = False
    """Whether b is a parameter: its rows then stay with the thread that updates them."""

    @property
    def sizes(self) -> tuple[int, int, int]:
        """m, n, k."""
        return self.a.shape[0], self.b.shape[1], self.a.shape[1]

    @property
    def is_inner(self) -> bool:
        """Whether both operands have k side by side."""
        return self.a.strides[1] == 1 and self.b.strides[0] == 1 and self.b.strides[1] != 1 and self.sizes[2] > 1


def blocks(columns: int, vector: Vector) -> list[tuple[int, int, int]]:
    """Blocks of columns: (first, vectors, width). Where the last vector would stick out it begins earlier and computes
    some columns twice; where there is less than one vector, it sticks out, and `width` says what is kept.

    >>> blocks(40, Vector(16, 32))
    [(0, 2, 32), (24, 1, 16)]
    """
    lanes, most = vector.lanes, vector.block[1]
    if columns < lanes:
        return [(0, 1, columns)]
    found, place = [], 0
    while place + lanes <= columns:
        count = min(most, (columns - place) // lanes)
        found.append((place, count, count * lanes))
        place += count * lanes
    return [*found, *([(columns - lanes, 1, lanes)] if place < columns else [])]


Tile = tuple[str, int, int, bool]
"""(kind, rows, columns, narrow) of a micro-kernel."""


def statement(product: Product, vector: Vector, threads: int) -> tuple[Statement, set[Tile]]:
    """The product, whose operands lie as the micro-kernel wants them, and the micro-kernels that it is made of."""
    m, n, _ = product.sizes
    writer = _Writer(product, vector, threads)
    reads = [Read(product.bias.name, None)] if product.bias else []
    if product.is_inner and product.weight_is_b and n >= m and n >= ALIGNED * threads:
        is_whole = product.b.offset == 0 and product.b.strides[1] * n == _extent(product.b)
        own = Read(product.b.name, n if is_whole else None, product.b.strides[1])
        text = writer.inner_by_columns()
        return Statement(text, (Read(product.a.name, None), own, *reads), (Read(product.c.name, None),)), writer.tiles
    text = writer.inner_by_rows() if product.is_inner else writer.outer()
    left = product.a.divided() if product.a.outer == 0 else Read(product.a.name, None)
    made = product.c.divided() if m > 1 else Read(product.c.name, None)
    return Statement(text, (left, Read(product.b.name, None), *reads), (made,)), writer.tiles


def _extent(array: Array) -> int:
    return max(stride * size for stride, size in zip(array.strides, array.shape, strict=True))


class _Writer:
    """Writes the loops around micro-kernels, and remembers which these are."""

    def __init__(self, product: Product, vector: Vector, threads: int) -> None:
        self.product = product
        self.vector = vector
        self.threads = threads
        self.tiles: set[Tile] = set()

    def outer(self) -> str:
        """Blocks of rows, a thread its own, each over all columns."""
        m, n, _ = self.product.sizes
        found = blocks(n, self.vector)
        most = self.vector.block[1]
        whole = [one for one in found if one[1] == most]

        def line(rows: int) -> str:
            lines = []
            if len(whole) > 1:
                _, count, width = whole[0]
                tile = self._tile("outer", rows, count, "m", "n", width)
                lines.append(f"for (long n = 0; n <= {whole[-1][0]}; n += {width}) {tile}")
            for place, count, width in found:
                if len(whole) <= 1 or count != most:
                    lines.append(self._tile("outer", rows, count, "m", str(place), width))
            return "\n      ".join(lines)

        return self._by_rows(m, line)

    def inner_by_rows(self) -> str:
        """The same where a and b have k side by side."""
        m, n, _ = self.product.sizes

        def line(rows: int) -> str:
            return "long n = 0; " + self._along("n", {n}, str(n), self.vector.block[1], rows)

        return self._by_rows(m, line)

    def inner_by_columns(self) -> str:
        """All rows, a thread its own columns."""
        m, n, _ = self.product.sizes
        owned = set(shares(n, self.threads))
        step = self.vector.block[0]
        lines = [f"  {{ {rows_of(n, self.threads)} const long last = to; long m = 0;"]
        for rows, head in _heights({m}, str(m), step, "m"):
            body = self._along("n", owned, "last", self.vector.block[1], rows)
            lines.append(f"    {head} {{ long n = from; {body} m += {rows}; }}")
        return "\n".join([*lines, "  }"])

    def _by_rows(self, m: int, line: Callable[[int], str]) -> str:
        lines = [f"  {{ {rows_of(m, self.threads)} const long first = from, last = to; long m = first;"]
        for rows, head in _heights(set(shares(m, self.threads)), "last", self.vector.block[0], "m"):
            after = f"{{ const long from = m, to = m + {rows}; (void)from; (void)to; {AFTER} }}"
            lines.append(f"    {head} {{\n      {line(rows)}\n      {after}\n      m += {rows}; }}")
        return "\n".join([*lines, "  }"])

    def _along(self, name: str, lengths: set[int], end: str, step: int, rows: int) -> str:
        parts = []
        for columns, head in _heights(lengths, end, step, name):
            parts.append(f"{head} {{ {self._tile('inner', rows, columns, 'm', name, None)} {name} += {columns}; }}")
        return " ".join(parts)

    def _tile(self, kind: str, rows: int, columns: int, m: str, n: str, width: int | None) -> str:
        product = self.product
        self.tiles.add((kind, rows, columns, product.narrow))
        a, b, c, bias = product.a, product.b, product.c, product.bias
        _, _, k = product.sizes
        of = f"(const {'float' if not product.narrow else SHORT if kind == 'inner' else INT} *)"
        if kind == "inner":
            strides = f"{k}, {a.strides[0]}, {b.strides[1]}, {c.strides[0]}"
            b_at = f"{of}{b.name} + {b.offset} + {n}*{b.strides[1]}"
        else:
            strides = f"{k}, {a.strides[0]}, {a.strides[1]}, {b.strides[0]}, {c.strides[0]}"
            b_at = f"{of}{b.name} + {b.offset} + {n}"
        told = f"{bias.name} + {bias.offset} + {n}" if bias is not None else "(const float *)0"
        places = f"{of}{a.name} + {a.offset} + {m}*{a.strides[0]}, {b_at}, {told}, {c.name} + {m}*{c.strides[0]} + {n}"
        suffix, more = "_narrow" if product.narrow else "", "" if width is None else f", {width}"
        return f"{kind}_{rows}_{columns}{suffix}<{strides}>({places}{more});"


def _heights(lengths: set[int], end: str, step: int, name: str) -> list[tuple[int, str]]:
    """Steps that walk every one of these lengths: as many of `step` as fit, and then what is left at once; each with
    the C that begins it."""
    found = []
    if any(length >= step for length in lengths):
        found.append((step, f"while ({name} + {step} <= {end})"))
    left = sorted({length % step for length in lengths} - {0})
    return [*found, *((size, f"if ({name} + {size} == {end})") for size in left)]


def paired(source: Array, to: Array, threads: int, ready: Array | None = None) -> Statement:
    """Rounds to bfloat16: rows k and k + 1 of `source` (k, n) become the pairs of row k / 2 of `to`. Of a matrix whose
    rounded copy is `ready`, that is read."""
    k, n = source.shape
    source, pair = (source, "pair") if ready is None else (ready, "joined")
    low, high = (source.at((f"(2*i0 + {half})", "i1")) for half in (0, 1))
    line = f'_Pragma("omp simd") for (long i1 = 0; i1 < {n}; i1++)'
    parts = []
    if k > 1:
        rows = f"{rows_of(k // 2, threads)}\n    for (long i0 = from; i0 < to; i0++) {line}"
        parts.append(f"  {{ {rows}\n      {to.name}[i0*{to.strides[0]} + i1] = {pair}({low}, {high}); }}")
    if k % 2:
        last, place = source.at((str(k - 1), "i1")), k // 2 * to.strides[0]
        parts.append(f"  if (t == 0) {line} {to.name}[{place} + i1] = {pair}({last}, 0);")
    return Statement("\n".join(parts), (Read(source.name, None),), (Read(to.name, None),))


def rounded(source: Array, to: Array, threads: int) -> Statement:
    """Rounds to bfloat16: `source` (rows, k), k side by side, becomes `to`, whose longer rows end with zeros."""
    rows, k = source.shape
    walk = f'for (long i0 = from; i0 < to; i0++) _Pragma("omp simd") for (long i1 = 0; i1 < {k}; i1++)'
    each = f"{to.name}[i0*{to.strides[0]} + i1] = narrow({source.at(('i0', 'i1'))});"
    text = f"  {{ {rows_of(rows, threads)}\n    {walk}\n      {each} }}"
    own = source.divided() if source.outer == 0 else Read(source.name, None)
    return Statement(text, (own,), (to.divided() if rows > 1 else Read(to.name, None),))
