"""The C of compiled steps: where threads wait, how rows are divided, and what blocks products are made of."""

from __future__ import annotations

import pytest

from vivace.codegen.arrays import Array, Read
from vivace.codegen.products import Product, blocks, statement
from vivace.codegen.statements import AFTER, Statement, merged_updates, scheduled, shares
from vivace.codegen.tiles import Vector, vector_of

WIDE = Vector(16, 32)


def barriers(*statements: Statement, threads: int = 2) -> list[str]:
    return [line.strip() for line in scheduled(statements, threads)]


def writes(name: str, rows: int | None, *reads: Read) -> Statement:
    return Statement(name, reads, (Read(name, rows),))


def test_a_thread_that_reads_its_own_rows_waits_for_nobody() -> None:
    assert barriers(writes("a", 8), writes("b", 8, Read("a", 8))) == ["a", "b", "barrier();"]


@pytest.mark.parametrize("rows", [None, 16], ids=["any row", "rows divided otherwise"])
def test_a_thread_waits_before_it_reads_what_another_wrote(rows: int | None) -> None:
    assert barriers(writes("a", 8), writes("b", 8, Read("a", rows))) == ["a", "barrier();", "b", "barrier();"]


def test_a_thread_waits_before_it_overwrites_what_another_may_still_read() -> None:
    found = barriers(writes("b", 8, Read("a", None)), writes("a", 8))

    assert found == ["b", "barrier();", "a", "barrier();"]


def test_one_thread_never_waits() -> None:
    assert barriers(writes("a", 8), writes("b", 8, Read("a", None)), threads=1) == ["a", "b"]


def test_an_update_follows_its_gradient_unless_the_weight_is_read_again() -> None:
    gradient = writes(f"g {AFTER}", 8)
    gradient = Statement(gradient.text, (), (Read("g", 8),))
    update = Statement("u", (Read("g", 8),), (Read("p", 8),))
    later = writes("x", 8, Read("p", None))

    assert [one.text for one in merged_updates([gradient], [update], ["g"])] == ["g u"]
    assert [one.text for one in merged_updates([gradient, later], [update], ["g"])] == [f"g {AFTER}", "x", "u"]


def test_every_row_is_somebodys_and_only_once() -> None:
    assert [sum(shares(rows, threads)) for rows in (1, 7, 8, 41, 64, 1000) for threads in (1, 2, 3, 8)] == [
        rows for rows in (1, 7, 8, 41, 64, 1000) for _ in range(4)
    ]


def test_blocks_of_columns_cover_all_of_them() -> None:
    covered = [
        {place + column for place, _, width in blocks(columns, WIDE) for column in range(width)}
        for columns in (1, 10, 16, 17, 48, 100, 784)
    ]

    assert covered == [set(range(columns)) for columns in (1, 10, 16, 17, 48, 100, 784)]


def test_a_product_takes_the_kernel_that_its_operands_lie_for() -> None:
    x, weight, out = Array.whole("x", (64, 784)), Array.whole("p", (128, 784)), Array.whole("c", (64, 128))
    turned = Array("p", (784, 128), (1, 784))

    forward, kernels = statement(Product(out, x, turned, None, False, weight_is_b=True), WIDE, 2)
    _, others = statement(Product(Array.whole("d", (64, 784)), out, weight, None, False), WIDE, 2)

    assert {kind for kind, *_ in kernels} == {"inner"} and {kind for kind, *_ in others} == {"outer"}
    assert Read("p", 128, 784) in forward.reads  # the thread's own rows of the weight


@pytest.mark.parametrize(
    ("instructions", "lanes", "bf16"),
    [(("avx512f", "avx512_bf16"), 16, True), (("avx2",), 8, False), (("asimd",), 4, False)],
    ids=["avx512", "avx2", "neon"],
)
def test_vectors_are_the_processors(instructions: tuple[str, ...], lanes: int, bf16: bool) -> None:
    found = vector_of(instructions)

    assert (found.lanes, found.has_bf16) == (lanes, bf16)
