"""What convolutions see of an image or a sequence: windows of it, and zeros around it."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence

from vivace.codegen.arrays import Value


def each_axis(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    """What an operator is given for all axes of an image at once, or for each.

    >>> each_axis(2, 2), each_axis([1, 2], 2), each_axis([3], 2)
    ((2, 2), (1, 2), (3, 3))
    """
    return (value,) * axes if isinstance(value, int) else tuple(value) * (axes if len(value) == 1 else 1)


def borders(
    padding: int | str | Sequence[int], kernel: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How many zeros there are before and after each axis, by what a convolution is given.

    >>> borders("same", (4,), (1,)), borders("valid", (3,), (1,)), borders(1, (3, 3), (1, 1))
    (((1,), (2,)), ((0,), (0,)), ((1, 1), (1, 1)))
    """
    if padding != "same":
        both = each_axis(0 if isinstance(padding, str) else padding, len(kernel))
        return both, both
    beyond = [apart * (size - 1) for size, apart in zip(kernel, dilation, strict=True)]
    return tuple(one // 2 for one in beyond), tuple(one - one // 2 for one in beyond)


@dataclasses.dataclass(frozen=True)
class Bordered(Value):
    """An image (n, channels, *sizes) with zeros around it, not written down: `inner` with so many `before` and `after`
    it along each of its sizes, which convolutions have anyway."""

    inner: Value | None = None
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Window:
    """How a convolution looks at an image, axis by axis (one axis for sequences): with so many zeros `before` and
    `after` it."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1

    @staticmethod
    def of_places(axes: int) -> Window:
        """The one of a pointwise convolution."""
        return Window((1,) * axes, (1,) * axes, (0,) * axes, (0,) * axes, (1,) * axes)

    def around(self, image: Bordered) -> Window:
        """The same with the zeros that are around an image already."""
        before = tuple(map(operator.add, self.before, image.before))
        return dataclasses.replace(self, before=before, after=tuple(map(operator.add, self.after, image.after)))

    @property
    def is_pointwise(self) -> bool:
        """Whether every place is an answer by itself."""
        return {*self.kernel, *self.stride} == {1} and not self.has_border

    @property
    def has_border(self) -> bool:
        """Whether it sees zeros around an image."""
        return any((*self.before, *self.after))

    def answers(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """The sizes of what it makes of an image."""
        return tuple(
            (size - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, dilation in zip(
                self.wide(sizes), self.kernel, self.stride, self.dilation, strict=True
            )
        )

    def wide(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """The sizes of an image with its border."""
        return tuple(map(sum, zip(sizes, self.before, self.after, strict=True)))
