"""What an exported graph is written down into: constants, places of rows, products that wait for what ends them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from vivace.codegen.arrays import BOOL, FLOAT, LONG, Array, Read, Value, stored
from vivace.codegen.lowering import Lowering
from vivace.codegen.panels import BFLOAT16, FLOAT32, INT8, Ending, Kernel, PanelProduct, Rows, packed, panels
from vivace.codegen.statements import Statement
from vivace.codegen.tiles import Vector
from vivace.core.errors import NotApplicable

MOST_PLACES = 1 << 17
Precision = Callable[[str], str]
"""What the products of a layer are computed in, by the name of its operator in the graph."""


@dataclasses.dataclass(frozen=True)
class Waiting(Value):
    """A product that is not written down yet: what follows may become a part of it. `weight` (columns, segments, run)
    and `bias` may still be scaled; `make` writes the product with them and its ending."""

    make: Callable[[Tensor, Tensor | None, Ending], Array] | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None
    ending: Ending = dataclasses.field(default_factory=Ending)
    members: tuple[str, ...] = ()
    """The graph's nodes whose work it does."""
    in_bytes: Callable[[Tensor, Tensor | None, Ending], Rows | None] | None = None
    """Writes it as the rows of a pointwise product in int8 that is all that reads it; None where it cannot."""


def waiting(
    shape: Sequence[int], make: Callable[[Tensor, Tensor | None, Ending], Array], weight: Tensor, bias: Tensor | None,
    order: tuple[int, ...] | None,
) -> Waiting:  # fmt: skip
    """A product of this shape that `make` will write down, its axes in this order."""

    def unread(_: Any) -> Any:
        raise AssertionError("a product is read before it is written down")

    bias = None if bias is None else bias.float()
    return Waiting(
        tuple(shape), FLOAT, unread, unread, None, False, order, make=make, weight=weight, bias=bias
    )  # fmt: skip


class Program(Lowering):
    """The statements of a program so far, and the constants that they read."""

    def __init__(
        self, vector: Vector, threads: int, precision: Precision, lanes: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(frozenset(), vector, threads)
        self.precision = precision
        self.crew = threads
        """Threads of the whole program; `threads` share what is being written down now."""
        self.lanes = lanes
        """The threads that take some of the graph's nodes alone; None where all threads share all."""
        self._made: dict[int, tuple[Waiting, Array]] = {}
        self.constants: dict[str, Tensor] = {}
        self.tables: dict[tuple[int, ...], str] = {}
        self.kernels: set[Kernel] = set()
        self.functions: dict[str, str] = {}
        """More C that statements call, by its name, in the order of its definition."""
        self.filled: dict[str, int] = {}
        """Arrays whose bytes are set before the first call, and to what."""
        self.nonnegative: set[str] = set()
        self.prepared: dict[Any, Rows] = {}
        self.flops = 0
        """Of the products with constant weights, and of cells, that were written down."""
        self.products: list[tuple[str, ...]] = []
        """The nodes that each product with a constant weight does the work of."""
        self._owners: list[tuple[str, ...]] = []
        self._owner: tuple[str, ...] = ()
        self._lane: int | None = None
        self._taken: list[int | None] = []
        self._by_tensor: dict[Any, Array] = {}
        self._lines: dict[str, tuple[int, int]] = {}

    def constant(self, tensor: Tensor) -> Array:
        """A tensor that never changes, as an array."""
        if tensor.dtype.is_floating_point and tensor.dtype is not torch.float32:
            tensor = tensor.float()
        elif tensor.dtype not in (torch.float32, torch.bool, torch.int64):
            tensor = tensor.long()
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if key not in self._by_tensor or not tensor.numel():
            name = f"k{len(self.constants)}"
            self.constants[name] = tensor.detach()
            kind = FLOAT if tensor.dtype is torch.float32 else BOOL if tensor.dtype is torch.bool else LONG
            self._by_tensor[key] = Array(name, tuple(tensor.shape), tensor.stride(), kind)
        return self._by_tensor[key]

    def known(self, value: Any) -> Tensor | None:
        """The numbers of a value that never changes; None for others, and for what is not there."""
        array = value.array if isinstance(value, Value) else None
        if array is None or array.name not in self.constants:
            return None
        return torch.as_strided(
            self.constants[array.name],
            array.shape,
            array.strides,
            self.constants[array.name].storage_offset() + array.offset,
        )

    def table(self, numbers: Sequence[int]) -> str:
        """The name of a list of numbers. Raises NotApplicable for one that is too long to be written down."""
        if len(numbers) > MOST_PLACES:
            raise NotApplicable(f"a product has {len(numbers)} rows; at most {MOST_PLACES} are written down")
        return self.tables.setdefault(tuple(numbers), f"table{len(self.tables)}")

    def lines(self, shape: Sequence[int], width: int) -> Array:
        """A new array (..., width) whose innermost lines have room for whole vectors, and end with zeros."""
        whole = self.room((*shape, self.vector.whole(width)))
        self._lines[whole.name] = (width, whole.shape[-1])
        return Array(whole.name, (*shape, width), whole.strides)

    def line_of(self, image: Array) -> int | None:
        """How long the lines of channels of an image are with the zeros that they end with; None if they have none."""
        width, line = self._lines.get(image.name, (0, 0))
        return line if image.offset == 0 and image.shape[1] == width and image.strides[1] == 1 else None

    def settled(self, operand: Any, size: int) -> Any:
        """An operand; a product that waits is written down."""
        return super().settled(self.written(operand), size)

    def written(self, operand: Any) -> Any:
        """A value that can be read; anything else as it is."""
        return stored(self.stored(operand)) if isinstance(operand, Waiting) else operand

    def stored(self, value: Value) -> Array:
        """Where a value lies; it is written down now if it does not lie anywhere. A product is written once, however
        many ask: where one operator is tried as several, each asks anew."""
        if not isinstance(value, Waiting):
            return super().stored(value)
        if id(value) not in self._made:
            assert value.make is not None and value.weight is not None
            with self.doing(value.members):
                array = value.make(value.weight, value.bias, value.ending)
            self._made[id(value)] = (value, array)
            self.products.append(value.members)
            if value.ending.relu:
                self.nonnegative.add(array.name)
        return self._made[id(value)][1]

    def in_bytes(self, value: Value) -> Rows | None:
        """A product that waits, written down as the rows of a pointwise product in int8; None where it cannot be."""
        if not isinstance(value, Waiting) or value.in_bytes is None or value.weight is None:
            return None
        with self.doing(value.members):
            rows = value.in_bytes(value.weight, value.bias, value.ending)
        if rows is not None:
            self.products.append(value.members)
        return rows

    @contextlib.contextmanager
    def doing(self, nodes: tuple[str, ...]) -> Iterator[None]:
        """What is written down inside does the work of these nodes of the graph."""
        self.owners()
        before, self._owner = self._owner, nodes
        try:
            with self.on((self.lanes or {}).get(nodes[0]) if nodes else None):
                yield
        finally:
            self.owners()
            self._owner = before

    @property
    def is_apart(self) -> bool:
        """Whether an operator may be taken by several threads, each a part of its own."""
        return self.lanes is not None and self.threads > 1

    @contextlib.contextmanager
    def on(self, lane: int | None) -> Iterator[None]:
        """What is written down inside is done by one thread alone; None: by all of them."""
        self.taken()
        before = self._lane, self.threads
        self._lane, self.threads = lane, self.crew if lane is None else 1
        try:
            yield
        finally:
            self.taken()
            self._lane, self.threads = before

    def owners(self) -> list[tuple[str, ...]]:
        """The nodes that each statement so far does the work of; none for what only hands answers over."""
        self._owners += [self._owner] * (len(self.statements) - len(self._owners))
        return self._owners

    def taken(self) -> list[int | None]:
        """The thread that takes each statement so far; None for those that all threads share."""
        self._taken += [self._lane] * (len(self.statements) - len(self._taken))
        return self._taken

    def function(self, name: str, text: str) -> str:
        """The name of a function, which is defined once."""
        self.functions.setdefault(name, text)
        return name

    def is_nonnegative(self, array: Array) -> bool:
        """Whether it holds no number below zero."""
        return array.name in self.nonnegative

    def add(self, text: str, reads: Sequence[Read], writes: Sequence[Read]) -> None:
        """One more statement."""
        self.statements.append(Statement(text, tuple(reads), tuple(writes)))

    def panel_product(
        self, weight: Tensor, bias: Tensor | None, rows: Rows, to: Array, line: int, ending: Ending, precision: str
    ) -> None:
        """A product with a constant weight (columns, segments, run), written down."""
        count = len(rows.places)
        self.flops += 2 * count * weight.numel()
        parts = self.threads if rows.are_few(self.threads) else 1
        vectors = -(-weight.shape[0] // self.vector.lanes)
        widths = panels(vectors, self.vector, count, parts, precision)
        ready = packed(weight, bias, precision, self.vector, widths)
        words, columns = self.kept(ready.words), self.kept(ready.columns)
        product = PanelProduct(to, line, rows, ready, words, columns, ending)
        made, kernels = product.statement(
            self.vector, self.threads, self.table(rows.places), self.table(rows.listed(precision))
        )  # fmt: skip
        self.statements.append(made)
        self.kernels |= kernels

    def kept(self, tensor: Tensor) -> str:
        """The name of numbers that never change and lie as they are given."""
        name = f"k{len(self.constants)}"
        self.constants[name] = tensor
        return name


def narrowest(wanted: str, vector: Vector, is_bfloat16: bool) -> str:
    """The precision of a product on this processor; `is_bfloat16`: its tensors are bfloat16 in the graph."""
    if wanted == INT8:
        return INT8
    return BFLOAT16 if (wanted == BFLOAT16 or is_bfloat16) and vector.has_bf16 else FLOAT32


def is_narrow(node: Node) -> bool:
    """Whether an operator gives bfloat16."""
    value = node.meta["val"]
    first = value[0] if isinstance(value, tuple | list) else value
    found: bool = first.dtype is torch.bfloat16
    return found


def rounds_operands(program: Program, node: Node) -> bool:
    """Whether a product of what is computed takes its operands in bfloat16: where those of other layers are that, or
    in int8, and the processor multiplies it."""
    wanted = program.precision(node.name)
    return program.vector.has_bf16 and (wanted in (BFLOAT16, INT8) or is_narrow(node))
