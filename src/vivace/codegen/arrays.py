"""Values as they are written down in C: arrays in memory, and what is computed element by element."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

Shape = tuple[int, ...]
Index = tuple[str, ...]
Order = tuple[int, ...]
"""Axes, the one whose steps in memory are largest first."""

FLOAT, LONG, BOOL = "float", "long", "bool"
"""Kinds of elements. bfloat16 is kept as float: products round it when they read it."""
OUTER = "i0"
"""The loop variable whose range is divided among threads."""


@dataclasses.dataclass(frozen=True)
class Read:
    """That a statement reads an array. `rows` is the count of rows that are divided among threads, each of `each`
    elements, where each thread reads its own rows alone; None where it may read any."""

    name: str
    rows: int | None
    each: int = 1

    @property
    def part(self) -> tuple[int, int] | None:
        """What tells two ways of dividing an array apart."""
        return None if self.rows is None else (self.rows, self.each)


@dataclasses.dataclass(frozen=True)
class Array:
    """Elements in memory: `name[offset + sum of index * stride]`."""

    name: str
    shape: Shape
    strides: Shape
    kind: str = FLOAT
    offset: int = 0

    @staticmethod
    def whole(name: str, shape: Shape, kind: str = FLOAT, order: Order | None = None) -> Array:
        """One element after the other, along the axes in this order.

        >>> Array.whole("a", (2, 3)).strides, Array.whole("a", (2, 3, 4), order=(0, 2, 1)).strides
        ((3, 1), (12, 1, 3))
        """
        return Array(name, shape, ordered(shape, order), kind)

    @property
    def is_dense(self) -> bool:
        """Whether it is one element after the other, from the beginning."""
        return self.offset == 0 and all(
            stride == wanted or size == 1
            for stride, wanted, size in zip(self.strides, dense(self.shape), self.shape, strict=True)
        )

    @property
    def order(self) -> Order:
        """The axes as they lie in memory.

        >>> Array("a", (2, 3), (1, 2)).order
        (1, 0)
        """
        return tuple(sorted(range(len(self.shape)), key=lambda axis: -self.strides[axis]))

    @property
    def outer(self) -> int | None:
        """The axis that threads divide: the outermost one that is longer than one."""
        return next((axis for axis in self.order if self.shape[axis] > 1), None)

    @property
    def index(self) -> Index:
        """Loop variables for its axes, numbered as they lie in memory; the first is `OUTER`.

        >>> Array.whole("a", (1, 3, 4), order=(0, 2, 1)).index
        ('0', 'i1', 'i0')
        """
        found = ["0"] * len(self.shape)
        for number, axis in enumerate(axis for axis in self.order if self.shape[axis] > 1):
            found[axis] = f"i{number}"
        return tuple(found)

    def at(self, index: Index) -> str:
        """The element as C.

        >>> Array("a", (2, 3), (1, 2)).at(("i0", "i1"))
        'a[i0 + i1*2]'
        """
        terms = [
            place if stride == 1 else f"{place}*{stride}"
            for place, stride, size in zip(index, self.strides, self.shape, strict=True)
            if place != "0" and stride and size > 1
        ]
        terms += [str(self.offset)] if self.offset or not terms else []
        return f"{self.name}[{' + '.join(terms)}]"

    def read(self, index: Index) -> Read:
        """How a statement that divides `OUTER` among threads reads it with this index."""
        outer = self.outer
        if outer is None or index[outer] != OUTER:
            return Read(self.name, None)
        return self.divided()

    def divided(self) -> Read:
        """How a statement reads or writes it whose threads take their own rows, of the axis `outer`."""
        outer = self.outer
        if outer is None or self.strides[outer] <= 0:
            return Read(self.name, None)
        within = sum((size - 1) * step for axis, (size, step) in enumerate(self._axes) if axis != outer)
        each = self.strides[outer]
        return Read(self.name, self.shape[outer] if self.offset + within < each else None, each)

    @property
    def _axes(self) -> list[tuple[int, int]]:
        return list(zip(self.shape, self.strides, strict=True))


def dense(shape: Sequence[int]) -> Shape:
    """Strides of elements that lie one after the other.

    >>> dense((2, 3, 4))
    (12, 4, 1)
    """
    return tuple(math.prod(shape[place + 1 :]) for place in range(len(shape)))


def ordered(shape: Sequence[int], order: Order | None) -> Shape:
    """The same along axes in this order."""
    if order is None:
        return dense(shape)
    steps = dense([shape[axis] for axis in order])
    return tuple(steps[order.index(axis)] for axis in range(len(shape)))


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor of a program. `at` gives an element as C, `reads` what that reads; `array` is where it lies, None where
    it is only computed when it is read. `is_costly` says that an element takes more than some instructions, `order` how
    its axes should lie if it is written down."""

    shape: Shape
    kind: str
    at: Callable[[Index], str]
    reads: Callable[[Index], tuple[Read, ...]]
    array: Array | None = None
    is_costly: bool = False
    order: Order | None = None
    coarse: Callable[[Index], str] | None = None
    """The same as `at` with less work, to within 2e-4, for what is made a byte; None where there is none."""

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @property
    def layout(self) -> Order:
        """How its axes lie, or should lie, in memory."""
        return self.array.order if self.array is not None else self.order or tuple(range(len(self.shape)))


def stored(array: Array) -> Value:
    """An array as a value."""
    return Value(array.shape, array.kind, array.at, lambda index: (array.read(index),), array)


def layout_of(values: Sequence[Value], shape: Shape) -> Order | None:
    """How what is computed of these values, element by element, should lie: as the first that has its shape."""
    for value in values:
        if value.shape == shape and (value.array is not None or value.order is not None):
            return value.layout
    return None


def constant(text: str, shape: Shape, kind: str) -> Value:
    """The same number everywhere."""
    return Value(shape, kind, lambda index: text, lambda index: ())


def broadcast(value: Value, index: Index) -> Index:
    """The index of a value's element for an index into a larger shape that it is stretched to.

    >>> broadcast(constant("1", (3, 1), FLOAT), ("i0", "i1", "i2"))
    ('i1', '0')
    """
    own = index[len(index) - len(value.shape) :] if value.shape else ()
    return tuple("0" if size == 1 else place for place, size in zip(own, value.shape, strict=True))
