"""Values of a step as they are written down in C: arrays in memory, and what is computed element by element."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

Shape = tuple[int, ...]
Index = tuple[str, ...]

FLOAT, LONG, BOOL = "float", "long", "bool"
"""Kinds of elements. bfloat16 is kept as float: products round it when they read it."""
OUTER = "i0"
"""The loop variable whose range is divided among threads."""


@dataclasses.dataclass(frozen=True)
class Read:
    """That a statement reads an array. `rows` is the count of rows that are divided among threads where each thread
    reads its own rows alone; None where it may read any."""

    name: str
    rows: int | None


@dataclasses.dataclass(frozen=True)
class Array:
    """Elements in memory: `name[offset + sum of index * stride]`."""

    name: str
    shape: Shape
    strides: Shape
    kind: str = FLOAT
    offset: int = 0

    @staticmethod
    def whole(name: str, shape: Shape, kind: str = FLOAT) -> Array:
        """One element after the other.

        >>> Array.whole("a", (2, 3)).strides
        (3, 1)
        """
        return Array(name, shape, dense(shape), kind)

    @property
    def is_dense(self) -> bool:
        """Whether it is one element after the other, from the beginning."""
        return self.offset == 0 and all(
            stride == wanted or size == 1
            for stride, wanted, size in zip(self.strides, dense(self.shape), self.shape, strict=True)
        )

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
        """How a statement whose outer loop is over `OUTER` reads it with this index."""
        is_own = self.is_dense and bool(index) and index[0] == OUTER and self.shape[0] > 1
        return Read(self.name, self.shape[0] if is_own else None)


def dense(shape: Sequence[int]) -> Shape:
    """Strides of elements that lie one after the other.

    >>> dense((2, 3, 4))
    (12, 4, 1)
    """
    return tuple(math.prod(shape[place + 1 :]) for place in range(len(shape)))


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor of a step. `at` gives an element as C, `reads` what that reads; `array` is where it lies, None where it
    is only computed when it is read. `is_costly` says that an element takes more than some instructions."""

    shape: Shape
    kind: str
    at: Callable[[Index], str]
    reads: Callable[[Index], tuple[Read, ...]]
    array: Array | None = None
    is_costly: bool = False

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)


def stored(array: Array) -> Value:
    """An array as a value."""
    return Value(array.shape, array.kind, array.at, lambda index: (array.read(index),), array)


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
