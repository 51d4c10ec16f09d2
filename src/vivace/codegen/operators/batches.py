"""Products of many pairs of matrices, as one statement: threads take pairs, and have memory of their own for each."""

from __future__ import annotations

import math

from torch.fx import Node

from vivace.codegen.arrays import FLOAT, Array, Order, Read, Shape, Value, stored
from vivace.codegen.lowering import Lowering, shape_of
from vivace.codegen.products import Product
from vivace.codegen.statements import Statement, rows_of
from vivace.core.errors import NotApplicable


class _OneByOne(Lowering):
    """What is done with one pair by one thread: its arrays are the thread's own."""

    def __init__(self, whole: Lowering) -> None:
        super().__init__(frozenset(), whole.vector, 1)
        self._whole = whole

    def room(self, shape: Shape, kind: str = FLOAT, order: Order | None = None) -> Array:
        """A new array for each thread."""
        each = self.vector.whole(math.prod(shape))
        array = self._whole.room((self._whole.threads, each), kind)
        return Array.whole(f"({array.name} + thread*{each})", shape, kind, order)

    def _is_worth_turning(self, wanted: Product) -> bool:
        """Always: sums are short."""
        return True


def product(lowering: Lowering, node: Node, a: Value, b: Value, is_narrow: bool) -> Value:
    """a (..., m, k) by b (..., k, n) with the same leading axes; `is_narrow`: with operands in bfloat16. Raises
    NotApplicable for others."""
    leading, shape = a.shape[:-2], shape_of(node)
    if len(a.shape) < 2 or b.shape[:-2] != leading or len(b.shape) != len(a.shape):
        raise NotApplicable(f"there is no C for {node.target} of shapes {a.shape} and {b.shape}")
    if len(shape) == 2:
        return lowering.product(shape, a, b, None, is_narrow)
    c, left, right = lowering.room(shape), lowering.stored(a), lowering.stored(b)
    axes = [axis for axis, size in enumerate(leading) if size > 1] or [0]
    one = _OneByOne(lowering)
    one.multiply(_matrix(c, axes), _matrix(left, axes), _matrix(right, axes), None, is_narrow)
    lowering.tiles |= one.tiles
    body = "\n".join(statement.alone(1).text for statement in one.statements)
    first, *others = axes
    loops = [f"for (long z{first} = from; z{first} < to; z{first}++)"]
    loops += [f"for (long z{axis} = 0; z{axis} < {leading[axis]}; z{axis}++)" for axis in others]
    head = f"{rows_of(leading[first], lowering.threads)} const int thread = t; (void)thread;"
    text = f"  {{ {head}\n  {' '.join(loops)} {{ const int t = 0; (void)t;\n{body}\n  }} }}"
    made, *read = (each.divided() if each.outer == first else Read(each.name, None) for each in (c, left, right))
    lowering.statements.append(Statement(text, tuple(read), (made,)))
    return stored(c)


def _matrix(array: Array, axes: list[int]) -> Array:
    """The matrix of an array at the places z0, z1, ... of its leading axes."""
    begin = " + ".join([array.name, *(f"z{axis}*{array.strides[axis]}" for axis in axes)])
    return Array(f"({begin})", array.shape[-2:], array.strides[-2:], array.kind, array.offset)
