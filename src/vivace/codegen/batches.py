"""Products of many pairs of matrices, as one statement: threads take pairs, and have memory of their own for each."""

from __future__ import annotations

import math

from torch.fx import Node

from vivace.codegen.arrays import FLOAT, Array, Order, Read, Shape, Value, stored
from vivace.codegen.lowering import Lowering, shape_of
from vivace.codegen.products import Product
from vivace.codegen.statements import Statement, rows_of


class _OneByOne(Lowering):
    """What is done with one pair, numbered `z` in C, by one thread: its arrays are the thread's own."""

    def __init__(self, whole: Lowering) -> None:
        super().__init__(frozenset(), whole.vector, 1)
        self._whole = whole

    def room(self, shape: Shape, kind: str = FLOAT, order: Order | None = None) -> Array:
        """A new array for each thread."""
        lanes = self.vector.lanes
        each = -(-math.prod(shape) // lanes) * lanes
        array = self._whole.room((self._whole.threads, each), kind)
        return Array.whole(f"({array.name} + thread*{each})", shape, kind, order)

    def _is_worth_turning(self, wanted: Product) -> bool:
        """Always: sums are short."""
        return wanted.b.kind == FLOAT


def product(lowering: Lowering, node: Node, a: Value, b: Value, is_narrow: bool) -> Value:
    """bmm: a (count, m, k) by b (count, k, n); `is_narrow`: with operands in bfloat16."""
    left, right = lowering.stored(a), lowering.stored(b)
    c = lowering.room(shape_of(node))
    one = _OneByOne(lowering)
    one.multiply(_each(c), _each(left), _each(right), None, is_narrow)
    lowering.tiles |= one.tiles
    body = "\n".join(statement.alone(1).text for statement in one.statements)
    head = f"{rows_of(c.shape[0], lowering.threads)} const int thread = t;"
    text = (
        f"  {{ {head}\n  for (long z = from; z < to; z++) {{ const int t = 0; (void)t;\n{body}\n  }} (void)thread; }}"
    )
    reads = tuple(each.divided() if each.outer == 0 else Read(each.name, None) for each in (left, right))
    written = c.divided() if c.outer == 0 else Read(c.name, None)
    lowering.statements.append(Statement(text, reads, (written,)))
    return stored(c)


def _each(array: Array) -> Array:
    """Matrix number `z` of an array of matrices."""
    return Array(f"({array.name} + z*{array.strides[0]})", array.shape[1:], array.strides[1:], array.kind, array.offset)
