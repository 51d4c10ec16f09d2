"""Convolutions and pooling of three axes (video, volumes), told as those of two for each frame."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vivace.core.errors import NotApplicable

Sizes = int | Sequence[int]


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1, padding: Sizes | str = 0,
    dilation: Sizes = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """conv3d of (n, channels, frames, height, width): frames that one window reads are channels side by side."""
    if x.dim() != 5 or isinstance(padding, str):
        raise NotApplicable("there is no C for conv3d without samples, or with borders that are not numbers")
    step, border, apart = (of_axes(one) for one in (stride, padding, dilation))
    deep = weight.shape[2]
    read = _read(functional.pad(x, (0, 0, 0, 0, border[0], border[0])), deep, step[0], apart[0])
    if groups == 1:  # each frame's channels stay together
        whole, lines = torch.stack(read, 1), weight.transpose(1, 2).flatten(1, 2)
        whole = whole.permute(0, 3, 1, 2, 4, 5)
    else:
        whole, lines = torch.stack(read, 2).permute(0, 3, 1, 2, 4, 5), weight.flatten(1, 2)
    n, count = whole.shape[:2]
    flat = whole.reshape(n * count, deep * x.shape[1], *x.shape[3:])
    return _volumes(functional.conv2d(flat, lines, bias, step[1:], border[1:], apart[1:], groups), n)


def transposed_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1, padding: Sizes = 0,
    output_padding: Sizes = 0, groups: int = 1, dilation: Sizes = 1,
) -> Tensor:  # fmt: skip
    """conv_transpose3d whose windows lie side by side along the frames: each frame gives as many as a window has."""
    step, border, more, apart = (of_axes(one) for one in (stride, padding, output_padding, dilation))
    if x.dim() != 5 or step[0] != weight.shape[2] or border[0] or more[0] or apart[0] != 1:
        raise NotApplicable("there is no C for transposed convolutions whose windows overlap along the frames")
    flat, rest = _frames(x), (step[1:], border[1:], more[1:], groups, apart[1:])
    made = [functional.conv_transpose2d(flat, part, bias, *rest) for part in weight.unbind(2)]
    found = torch.stack(made, 1)  # (n * frames, of a window, channels, height, width)
    return _volumes(found.reshape(-1, *found.shape[2:]), len(x))


def largest(
    x: Tensor, kernel: Sizes, stride: Sizes = (), padding: Sizes = 0, dilation: Sizes = 1, ceil_mode: bool = False
) -> Tensor:
    """max_pool3d: within each frame, then among the frames."""
    size, border = of_axes(kernel), of_axes(padding)
    step = of_axes(stride) if stride != [] and stride != () else size
    if x.dim() != 5 or ceil_mode or set(of_axes(dilation)) != {1}:
        raise NotApplicable("there is no C for max_pool3d without samples, with gaps, or that rounds up")
    found = _volumes(functional.max_pool2d(_frames(x), size[1:], step[1:], border[1:]), len(x))
    if size[0] == step[0] == 1:
        return found
    found = functional.pad(found, (0, 0, 0, 0, border[0], border[0]), value=-torch.inf) if border[0] else found
    return functools.reduce(torch.maximum, _read(found, size[0], step[0]))


def mean(
    x: Tensor, kernel: Sizes, stride: Sizes = (), padding: Sizes = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """avg_pool3d: within each frame, then among the frames."""
    size, border = of_axes(kernel), of_axes(padding)
    step = of_axes(stride) if stride != [] and stride != () else size
    if x.dim() != 5 or ceil_mode or divisor_override or (border[0] and not count_include_pad):
        raise NotApplicable("there is no C for avg_pool3d of this kind")
    flat = functional.avg_pool2d(_frames(x), size[1:], step[1:], border[1:], False, count_include_pad)
    found = functional.pad(_volumes(flat, len(x)), (0, 0, 0, 0, border[0], border[0]))
    return functools.reduce(torch.add, _read(found, size[0], step[0])) / size[0]


def adaptive_mean(x: Tensor, sizes: Sizes) -> Tensor:
    """adaptive_avg_pool3d into one element, or into as many as divide what is there."""
    wanted = of_axes(sizes)
    if x.dim() != 5 or any(one % by for one, by in zip(x.shape[2:], wanted, strict=True)):
        raise NotApplicable("there is no C for adaptive_avg_pool3d but into sizes that divide the volume's")
    if set(wanted) == {1}:
        return x.mean((2, 3, 4), keepdim=True)
    return mean(x, [one // by for one, by in zip(x.shape[2:], wanted, strict=True)])


def enlarged(x: Tensor, sizes: Sequence[int] | None, factors: Any = None, *more: Any) -> Tensor:
    """upsample_nearest3d by whole numbers: frames are repeated, and each is enlarged."""
    given = factors if isinstance(factors, list | tuple) else (factors, *more)
    wanted = sizes if sizes is not None else [int(one * by) for one, by in zip(x.shape[2:], given, strict=True)]
    if any(large % small for large, small in zip(wanted, x.shape[2:], strict=True)):
        raise NotApplicable("there is no C for upsample_nearest3d but by whole numbers")
    found = _volumes(functional.interpolate(_frames(x), list(wanted[1:])), len(x))
    times = wanted[0] // x.shape[2]
    return torch.stack([found] * times, 3).flatten(2, 3) if times > 1 else found


def _frames(x: Tensor) -> Tensor:
    """(n, channels, frames, ...) as (n * frames, channels, ...)."""
    return x.transpose(1, 2).reshape(-1, x.shape[1], *x.shape[3:])


def _volumes(flat: Tensor, samples: int) -> Tensor:
    """The other way."""
    return flat.reshape(samples, -1, *flat.shape[1:]).transpose(1, 2)


def _read(x: Tensor, deep: int, step: int, apart: int = 1) -> list[Tensor]:
    """For each of the frames of a window, those that it is at every place: (n, channels, places, ...)."""
    count = (x.shape[2] - apart * (deep - 1) - 1) // step + 1
    firsts = range(0, deep * apart, apart)
    return [x[:, :, first : first + (count - 1) * step + 1 : step] for first in firsts]


def of_axes(given: Any, axes: int = 3) -> tuple[int, ...]:
    """A number for each axis, where one is for all of them."""
    each = (given,) if isinstance(given, int) else tuple(given)
    return each * axes if len(each) == 1 else each


VOLUMES: Mapping[str, Callable[..., Any]] = {
    "conv3d": convolution, "conv_transpose3d": transposed_convolution, "max_pool3d": largest, "avg_pool3d": mean,
    "adaptive_avg_pool3d": adaptive_mean, "upsample_nearest3d": enlarged,
}  # fmt: skip
"""By the operator's name."""
