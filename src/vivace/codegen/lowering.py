"""What operators are written down into: values, the memory that some of them get, and statements."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from vivace.codegen.arrays import BOOL, FLOAT, LONG, Array, Order, Read, Shape, Value, stored
from vivace.codegen.elementwise import FORMULAS, formula
from vivace.codegen.products import INT, SHORT, Product, Tile, paired, rounded, statement
from vivace.codegen.statements import Statement, loop, rows_of
from vivace.codegen.tiles import Vector
from vivace.core.errors import NotApplicable

KINDS = {torch.float32: FLOAT, torch.bfloat16: FLOAT, torch.int64: LONG, torch.int32: LONG, torch.bool: BOOL}
"""How tensors that are computed are kept. What is bfloat16 in a recording is kept in float: only products round it, as
they read it."""


SHORT_SUMS, MANY_ROWS = 16, 8
"""Vectors that a sum is short with; vectors' lengths of rows that are many."""


MOST_BYTES = 1 << 30
"""Of all arrays that a program computes: each has its own memory."""
KIND_BYTES = {FLOAT: 4, LONG: 8, BOOL: 1, SHORT: 2, "byte": 1, INT: 4}


@dataclasses.dataclass(frozen=True)
class Rounded:
    """A matrix `source` and its copy `to` in bfloat16, whose rows are longer, as `statement` makes it."""

    source: Array
    to: Array
    statement: Statement


class Lowering:
    """The statements of a step so far, for processors with `vector` and for so many threads. `weights` are names of
    arrays that hold parameters, `buffers` of those that a step may leave something in."""

    def __init__(
        self, weights: frozenset[str], vector: Vector, threads: int, buffers: frozenset[str] = frozenset()
    ) -> None:
        self.vector = vector
        self.threads = threads
        self.statements: list[Statement] = []
        self.scratch: dict[str, tuple[str, int]] = {}
        self.tiles: set[Tile] = set()
        self.rounded: dict[str, Rounded] = {}
        """Of matrices that lie whole in an array, by its name: their copies in bfloat16."""
        self.writes: dict[Array, Value] = {}
        """What is left in buffers when all else is done."""
        self._weights = weights
        self._buffers = buffers
        self._prepared: dict[tuple[str, Array], Array] = {}

    def room(self, shape: Shape, kind: str = FLOAT, order: Order | None = None) -> Array:
        """A new array, its axes in this order."""
        name = f"w{len(self.scratch)}"
        self.scratch[name] = (kind, max(1, math.prod(shape)))
        return Array.whole(name, shape, kind, order)

    def leave(self, array: Array, value: Value) -> Value:
        """A value that a buffer is to hold afterwards; the value. Raises NotApplicable for what is no buffer."""
        if array.name not in self._buffers:
            raise NotApplicable("it writes into a weight or its batch: there is no C for that")
        value = stored(self.stored(converted(value, array.kind)))
        self.writes[array] = value
        return value

    def check_memory(self) -> None:
        """Raise NotApplicable where the arrays take more memory than a small network should."""
        taken = sum(KIND_BYTES[kind] * size for kind, size in self.scratch.values())
        if taken > MOST_BYTES:
            raise NotApplicable(
                f"its arrays would take {taken / 2**30:.1f} GiB; at most {MOST_BYTES / 2**30:g} are given"
            )

    def stored(self, value: Value) -> Array:
        """Where a value lies; it is written down now if it does not lie anywhere."""
        if value.array is not None:
            return value.array
        array = self.room(value.shape, value.kind, value.order)
        self.statements.append(loop(array, value, self.threads))
        return array

    def copied(self, value: Value) -> Array:
        """A value's elements one after the other, written down anew."""
        return self.stored(Value(value.shape, value.kind, value.at, value.reads))

    def settled(self, operand: Any, size: int) -> Any:
        """An operand of so many elements; one that is costly and has fewer itself is computed once."""
        if isinstance(operand, Value) and operand.array is None and operand.is_costly and operand.size < size:
            return stored(self.stored(operand))
        return operand

    def formula(self, name: str, operands: Sequence[Any], shape: Shape, kind: str) -> Value:
        """A formula of values and numbers. What it reads twice is computed once."""
        settled = [self.settled(one, math.prod(shape)) for one in operands]
        for place, one in enumerate(settled):
            is_computed = isinstance(one, Value) and one.array is None and bool(one.reads(("0",) * len(one.shape)))
            if is_computed and FORMULAS[name].count(f"{{{place}}}") > 1:
                settled[place] = stored(self.stored(one))
        return formula(name, settled, shape, kind)

    def product(self, shape: Shape, a: Value, b: Value, bias: Array | None, is_narrow: bool) -> Value:
        """The product of two matrices, plus a row; `is_narrow`: with operands in bfloat16."""
        left, right = self.stored(a), self.stored(b)
        c = self.room(shape)
        self.multiply(c, left, right, bias, is_narrow)
        return stored(c)

    def multiply(self, c: Array, a: Array, b: Array, bias: Array | None, is_narrow: bool) -> None:
        """The product of two matrices, plus a row, written down in an array. Raises NotApplicable for whole numbers."""
        if not a.kind == b.kind == FLOAT:
            raise NotApplicable("there is no C for products of matrices of whole numbers")
        wanted = Product(c, a, b, bias, False, b.name in self._weights)
        prepared = self._prepare(wanted, is_narrow and self.vector.has_bf16)
        made, tiles = statement(prepared, self.vector, self.threads)
        self.statements.append(made)
        self.tiles |= tiles

    def _prepare(self, wanted: Product, is_narrow: bool) -> Product:
        """The product with operands that lie as its micro-kernel reads them."""
        a, b = wanted.a, wanted.b
        if wanted.is_inner and self._is_worth_turning(wanted):
            b = self._turned_copy(b)
            wanted = dataclasses.replace(wanted, b=b)
        if wanted.is_inner:
            if not is_narrow:
                return wanted
            right = _turned(self._rounded(_turned(b)))
            return Product(wanted.c, self._rounded(a), right, wanted.bias, True, wanted.weight_is_b)
        if b.strides[1] != 1 or (b.shape[1] < self.vector.lanes and not is_narrow):
            b = self._side_by_side(b)
        if not is_narrow:
            return Product(wanted.c, a, b, wanted.bias, False, wanted.weight_is_b)
        pairs = self._paired(b)
        if a.strides[1] == 1:
            left = self._rounded(a)
            left = Array(left.name, (left.shape[0], pairs.shape[0]), (left.strides[0] // 2, 1), INT)
        else:
            left = _turned(self._paired(_turned(a)))
        return Product(wanted.c, left, pairs, wanted.bias, True, wanted.weight_is_b)

    def _is_worth_turning(self, wanted: Product) -> bool:
        """Whether adding up lanes costs more than laying the right side out anew, whose columns all rows share."""
        m, _, k = wanted.sizes
        return k <= SHORT_SUMS * self.vector.lanes and m >= MANY_ROWS * self.vector.lanes

    def _turned_copy(self, b: Array) -> Array:
        """b (k, n), whose rows lie in its columns' place, with its columns side by side."""
        key = ("turned", b)
        if key not in self._prepared:
            (k, n), lanes = b.shape, self.vector.lanes
            wide = self.room((k, max(n, lanes)))
            lines = f"{b.name} + {b.offset} + from*{b.strides[1]}, {b.strides[1]}, {wide.name} + from"
            text = f"  {{ {rows_of(n, self.threads)} turned({lines}, {wide.strides[0]}, to - from, {k}); }}"
            self.statements.append(Statement(text, (Read(b.name, None),), (Read(wide.name, None),)))
            self._prepared[key] = Array(wide.name, (k, n), wide.strides)
        return self._prepared[key]

    def _side_by_side(self, b: Array) -> Array:
        """A copy of b (k, n) with its columns side by side, and room for a whole vector of them."""
        k, n = b.shape
        wide = self.room((k, max(n, self.vector.lanes)))
        to = Array(wide.name, (k, n), wide.strides)
        self.statements.append(loop(to, stored(b), self.threads))
        return to

    def _rounded(self, source: Array) -> Array:
        key = ("rounded", source)
        if key not in self._prepared:
            rows, k = source.shape
            step = 2 * self.vector.lanes
            to = self._prepared[key] = self.room((rows, -(-k // step) * step), SHORT)
            made = rounded(source, to, self.threads)
            self.statements.append(made)
            if source.is_dense:
                self.rounded[source.name] = Rounded(source, to, made)
        return self._prepared[key]

    def _paired(self, source: Array) -> Array:
        key = ("paired", source)
        if key not in self._prepared:
            k, n = source.shape
            wide = self.room((-(-k // 2), max(n, self.vector.lanes)), INT)
            to = self._prepared[key] = Array(wide.name, (wide.shape[0], n), wide.strides, INT)
            ready = self._prepared.get(("rounded", source))
            self.statements.append(paired(source, to, self.threads, ready))
        return self._prepared[key]


def _turned(array: Array) -> Array:
    return Array(array.name, array.shape[::-1], array.strides[::-1], array.kind, array.offset)


def converted(value: Value, kind: str) -> Value:
    """A value as another kind of number."""
    if kind == value.kind:
        return value
    order = value.layout if value.array is not None else value.order
    return Value(value.shape, kind, lambda i: f"({kind})({value.at(i)})", value.reads, None, value.is_costly, order)


def operator_of(node: Node) -> str:
    """The operator's name, without its overload."""
    return str(getattr(node.target, "overloadpacket", node.target)).rpartition(".")[2]


def shape_of(node: Node) -> Shape:
    """Of what an operator gives."""
    return tuple(int(size) for size in node.meta["val"].shape)


def kind_of(node: Node) -> str:
    """How what an operator gives is kept. Raises NotApplicable for types that have no place in C here."""
    dtype = node.meta["val"].dtype
    if dtype not in KINDS:
        raise NotApplicable(f"there is no C for tensors of {dtype}")
    return KINDS[dtype]
