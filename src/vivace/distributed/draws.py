"""Random numbers as one process would draw them: every rank draws those of the whole batch, and keeps its rows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from vivace.distributed.parts import Part

Axes = Mapping[int, int | None]
"""Which axis of the draws of a step, by their numbers from 0, is the batch's; None where none of it is."""


class WholeDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, an operator that draws random numbers for the rows of a part draws them for the whole batch.

    So a dropout's mask is the one of one process, and the generators of all ranks stay alike. The axis of the batch is
    the first one if it is as long as the part, or a multiple of that (rows times heads); else the first axis that is
    exactly as long; else the draw is not the batch's, and every rank draws the same, as one process does. Where
    another axis may be it, as in a recurrence of as many steps as a part has rows, `axes` says it.
    """

    def __init__(self, part: Part, axes: Axes | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.part = part
        self._axes = axes
        self.draws = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not is_drawing(func, args, kwargs):
            return func(*args, **kwargs)
        self.draws += 1
        if args and torch.is_tensor(args[0]):
            return self._drawn_like(func, args, kwargs)
        return self._drawn(func, args, kwargs)

    def _drawn_like(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An operator on a tensor: run on a whole one, which holds the part's rows at their place; so are all tensors
        that it takes beside it with as many rows, such as the keys and values of an attention."""
        own: Tensor = args[0]
        where = self.rows_of(own.shape)
        if where is None:
            return func(*args, **kwargs)
        axis, start, length, size = where

        def grown(one: Any) -> Any:
            if not torch.is_tensor(one) or one.ndim <= axis or one.shape[axis] != length:
                return one
            whole = zeros_like_in([*one.shape[:axis], size, *one.shape[axis + 1 :]], one)
            whole.narrow(axis, start, length).copy_(one)
            return whole

        whole = grown(own)
        found = func(whole, *map(grown, args[1:]), **{name: grown(value) for name, value in kwargs.items()})
        if found is whole:
            return own.copy_(whole.narrow(axis, start, length))

        def mine(one: Any) -> Any:
            is_whole = torch.is_tensor(one) and one.ndim > axis and one.shape[axis] == size
            return one.narrow(axis, start, length).clone() if is_whole else one

        return pytree.tree_map(mine, found)

    def _drawn(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An operator that is given a size: `rand`, `randn`, `randint`."""
        place = next((n for n, one in enumerate(args) if isinstance(one, list | tuple | torch.Size)), None)
        where = None if place is None else self.rows_of(args[place])
        if where is None or place is None:
            return func(*args, **kwargs)
        axis, start, length, size = where
        shape = [*args[place][:axis], size, *args[place][axis + 1 :]]
        return func(*args[:place], shape, *args[place + 1 :], **kwargs).narrow(axis, start, length).clone()

    def rows_of(self, shape: Any) -> tuple[int, int, int, int] | None:
        """The axis of the batch, where the part begins on it, how long it is there and how long the whole is."""
        rows = self.part.rows
        found = [axis for axis, size in enumerate(shape) if size == rows or (axis == 0 and size and size % rows == 0)]
        axis = found[0] if found else None
        is_unsure = len(found) > 1 or (axis == 0 and shape[0] != rows)
        if is_unsure and self._axes is not None:
            known = self._axes.get(self.draws - 1, axis)
            axis = known if known is None or (known < len(shape) and shape[known] % rows == 0) else axis
        if axis is None:
            return None
        times = shape[axis] // rows
        return axis, self.part.start * times, rows * times, self.part.whole * times


class Draws:
    """Runs steps so that they draw as one process would. Looking at every operator costs time, so that is done in a
    step only if one before it has drawn outside of the model's dropout layers, which are looked at alone.
    """

    def __init__(self, model: nn.Module, axes: Axes | None = None) -> None:
        self._axes = axes
        self._everywhere = True
        self._mode: WholeDraws | None = None
        self._in_layers = 0
        for module in model.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.register_forward_pre_hook(self._begin)
                module.register_forward_hook(self._end, always_call=True)

    @contextlib.contextmanager
    def of(self, part: Part) -> Iterator[None]:
        """A step on this part of a batch."""
        self._mode, self._in_layers = WholeDraws(part, self._axes), 0
        if self._everywhere:
            with self._mode:
                yield
            self._everywhere = self._mode.draws > self._in_layers
        else:
            yield
        self._mode = None

    def _begin(self, module: nn.Module, _: Any) -> None:
        mode = self._mode
        if mode is not None and module.training:
            self._before = mode.draws
            if not self._everywhere:
                mode.__enter__()  # type: ignore[no-untyped-call]

    def _end(self, module: nn.Module, *_: Any) -> None:
        mode = self._mode
        if mode is not None and module.training:
            self._in_layers += mode.draws - self._before
            if not self._everywhere:
                mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]


class DrawnShapes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes how large each draw inside is: the tensor that an operator is given, or the size."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if is_drawing(func, args, kwargs):
            size = next((one for one in args if torch.is_tensor(one) or isinstance(one, list | tuple)), ())
            self.found.append(tuple(size.shape if torch.is_tensor(size) else size))
        return func(*args, **kwargs)


def axes_between(one: Sequence[Sequence[int]], other: Sequence[Sequence[int]]) -> dict[int, int | None]:
    """The axis of the batch of each draw, by what differs between the draws for two batches of different lengths; of
    one in which more than one axis does, nothing is said, and of none where there are not as many.

    >>> axes_between([(8, 4, 16), (16,)], [(8, 3, 16), (16,)])
    {0: 1, 1: None}
    """
    found: dict[int, int | None] = {}
    if len(one) != len(other):
        return found
    for number, (mine, theirs) in enumerate(zip(one, other, strict=True)):
        if len(mine) == len(theirs):
            axes = [axis for axis, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b]
            if len(axes) < 2:
                found[number] = axes[0] if axes else None
    return found


def is_drawing(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether an operator draws random numbers when it is called so."""
    return torch.Tag.nondeterministic_seeded in getattr(func, "tags", ()) and not _is_still(func, args, kwargs)


def _is_still(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether an operator that may draw does not: an attention without dropout."""
    for place, argument in enumerate(func._schema.arguments):
        if argument.name == "dropout_p":
            given = args[place] if place < len(args) else kwargs.get(argument.name, argument.default_value)
            return not given
    return False


def zeros_like_in(shape: list[int], like: Tensor) -> Tensor:
    """Zeros whose axes lie in memory in the order of another tensor's: numbers are drawn in that order."""
    strides = list(like.stride())
    order = sorted(range(like.ndim), key=lambda axis: (-strides[axis], axis))
    back = sorted(range(like.ndim), key=order.__getitem__)
    return like.new_zeros([shape[axis] for axis in order]).permute(back)
