"""The integer graph: values with a format and a scale, and the few operations on them that hardware is made of.

Arrays of values are [samples, channels, height, width]; a vector is [samples, features, 1, 1]. A real number is its
integer times the scale of its value; there are no zero points, so that padding with 0 is padding with nothing.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.int64]]
MULTIPLIER_BITS = 16
"""Of an unsigned multiplier: with its sign it fits the 18-bit multipliers of common FPGAs."""
MOST_ACCUMULATOR_BITS = 32
MOST_SHIFT = 40


@dataclasses.dataclass(frozen=True)
class Format:
    """Integers of so many bits. The most negative one of a signed format is not used, so that ranges are symmetric.

    >>> Format(8, signed=True).low, Format(8, signed=True).high, Format(4, signed=False).high
    (-127, 127, 15)
    """

    bits: int
    signed: bool

    @property
    def low(self) -> int:
        """The smallest integer that occurs."""
        return -self.high if self.signed else 0

    @property
    def high(self) -> int:
        """The largest integer that occurs."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1


@dataclasses.dataclass(frozen=True)
class Value:
    """What an operation gives: `shape` is (channels, height, width)."""

    shape: tuple[int, int, int]
    format: Format
    scale: float

    @property
    def elements(self) -> int:
        """Integers of one sample."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Window:
    """How a window walks over a map, each as (vertical, horizontal)."""

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)

    def output(self, height: int, width: int) -> tuple[int, int]:
        """The size of the map that comes out.

        >>> Window((3, 3), (2, 2), (1, 1)).output(28, 28)
        (14, 14)
        """
        sizes = zip((height, width), self.kernel, self.stride, self.padding, strict=True)
        rows, columns = ((size + 2 * pad - kernel) // stride + 1 for size, kernel, stride, pad in sizes)
        return rows, columns


@dataclasses.dataclass(frozen=True)
class Rounding:
    """q = clip((v * multiplier + half) >> shift, low, high), where half = 2^(shift - 1), or 0 without a shift.

    The shift is arithmetic, so the rounding is to the nearest integer, and halves go up.
    """

    shift: int
    low: int
    high: int

    @property
    def half(self) -> int:
        """What is added before the shift."""
        return (1 << self.shift) >> 1

    def apply(self, product: Array) -> Array:
        """Shift, round and clip a product."""
        shifted: Array = (product + self.half) >> self.shift
        return np.clip(shifted, self.low, self.high)


@dataclasses.dataclass(frozen=True, eq=False)
class Product:
    """A convolution, or a linear layer as one of 1 x 1 over a vector: exact sums, then one rounding per channel.

    `weight` is [outputs, inputs / groups, *kernel] of `weight_bits` signed bits (1 bit: -1 and 1); `bias` and
    `multiplier` have one entry an output. `accumulator_bits` hold every sum that can occur, signed.
    """

    name: str
    source: int
    window: Window
    groups: int
    weight: Array
    bias: Array
    multiplier: Array
    rounding: Rounding
    weight_bits: int
    accumulator_bits: int

    @property
    def sources(self) -> tuple[int, ...]:
        """The values that it reads."""
        return (self.source,)


@dataclasses.dataclass(frozen=True, eq=False)
class MaximumPool:
    """The largest integer of each window, clipped to [low, high]; what lies outside the map does not count."""

    name: str
    source: int
    window: Window
    low: int
    high: int

    @property
    def sources(self) -> tuple[int, ...]:
        """The values that it reads."""
        return (self.source,)


@dataclasses.dataclass(frozen=True, eq=False)
class SumPool:
    """The sum of each window, times one multiplier: an average. What lies outside the map counts as 0."""

    name: str
    source: int
    window: Window
    multiplier: int
    rounding: Rounding
    accumulator_bits: int

    @property
    def sources(self) -> tuple[int, ...]:
        """The values that it reads."""
        return (self.source,)


@dataclasses.dataclass(frozen=True, eq=False)
class Addition:
    """first * multipliers[0] + second * multipliers[1], rounded once."""

    name: str
    first: int
    second: int
    multipliers: tuple[int, int]
    rounding: Rounding

    @property
    def sources(self) -> tuple[int, ...]:
        """The values that it reads."""
        return (self.first, self.second)


@dataclasses.dataclass(frozen=True, eq=False)
class Rescale:
    """Each integer times one multiplier, rounded and clipped: an activation that no other operation could take in."""

    name: str
    source: int
    multiplier: int
    rounding: Rounding

    @property
    def sources(self) -> tuple[int, ...]:
        """The values that it reads."""
        return (self.source,)


@dataclasses.dataclass(frozen=True, eq=False)
class Flatten:
    """A map as a vector, channels first, as PyTorch orders it."""

    name: str
    source: int

    @property
    def sources(self) -> tuple[int, ...]:
        """The values that it reads."""
        return (self.source,)


Operation = Product | MaximumPool | SumPool | Addition | Rescale | Flatten


@dataclasses.dataclass(frozen=True, eq=False)
class IntegerGraph:
    """`values[0]` is the input; operation i gives `values[i + 1]`; the last value is the output.

    The host gives round(x / values[0].scale), halves up, clipped to the format, and multiplies what comes back by
    `values[-1].scale`.
    """

    name: str
    values: tuple[Value, ...]
    operations: tuple[Operation, ...]

    @property
    def input(self) -> Value:
        """What goes in."""
        return self.values[0]

    @property
    def output(self) -> Value:
        """What comes out."""
        return self.values[-1]

    def quantize(self, x: np.ndarray[Any, Any]) -> Array:
        """Real inputs as the integers that the host gives, [samples, channels, height, width]."""
        given = self.input
        scaled = np.floor(np.asarray(x, np.float64) / given.scale + 0.5)
        clipped = np.clip(scaled, given.format.low, given.format.high).astype(np.int64)
        return clipped.reshape(-1, *given.shape)

    def dequantize(self, q: Array) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Integers that came out as real numbers."""
        return q.astype(np.float64) * self.output.scale

    def users(self, value: int) -> list[int]:
        """The operations that read a value."""
        return [number for number, operation in enumerate(self.operations) if value in operation.sources]

    @property
    def multiplications(self) -> int:
        """Products of weights and activations for one sample."""
        return sum(
            operation.weight[0].size * self.values[number + 1].elements
            for number, operation in enumerate(self.operations)
            if isinstance(operation, Product)
        )

    @property
    def weight_storage_bits(self) -> int:
        """Bits that all weights take."""
        products = [operation for operation in self.operations if isinstance(operation, Product)]
        return sum(product.weight.size * product.weight_bits for product in products)
