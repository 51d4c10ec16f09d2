"""Arrays whose axes lie in any order: how loops number them, and which rows are a thread's own."""

from __future__ import annotations

from vivace.codegen.arrays import Array, Read, stored
from vivace.codegen.panels import panels
from vivace.codegen.statements import loop
from vivace.codegen.tiles import Vector

WIDE = Vector(16, 32)


def test_threads_divide_the_outermost_axis_that_is_longer_than_one() -> None:
    image = Array.whole("a", (1, 3, 8, 9), order=(0, 2, 3, 1))

    assert image.outer == 2 and image.index == ("0", "i2", "i0", "i1")
    assert image.divided() == Read("a", 8, 27)


def test_a_reader_that_walks_otherwise_may_read_the_rows_of_others() -> None:
    image = Array.whole("a", (2, 3, 8), order=(0, 2, 1))

    assert image.read(("i0", "i2", "i1")) == Read("a", 2, 24)
    assert image.read(("i1", "i2", "i0")) == Read("a", None)
    assert Array("a", (2, 8), (8, 1), offset=8).divided().rows is None  # it reaches into the next row


def test_a_loop_walks_what_it_writes_as_it_lies() -> None:
    source, to = Array.whole("a", (4, 3, 5)), Array.whole("b", (4, 3, 5), order=(0, 2, 1))

    text = loop(to, stored(source), 2).text

    assert "b[i0*15 + i2 + i1*3] = a[i0*15 + i2*5 + i1]" in text and text.count("for (") == 3


def test_panels_hold_every_column_and_fit_the_registers() -> None:
    for vectors in range(1, 40):
        for rows in (1, 2, 3, 8, 100):
            for parts in (1, 2, 4):
                widths = panels(vectors, WIDE, rows, parts)
                height = min(rows, 8)
                assert sum(widths) == vectors and len(widths) >= min(parts, vectors)
                assert all(width * (height + 1) < WIDE.registers for width in widths)
