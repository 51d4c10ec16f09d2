"""Operators told as others that there is C for: what PyTorch does not take apart itself, or takes apart differently."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vivace.core.errors import NotApplicable
from vivace.runtimes.told.volumes import VOLUMES, of_axes


def softmax(x: Tensor, dim: int, *_: Any) -> Tensor:
    """Along another axis than the last."""
    return x.movedim(dim, -1).softmax(-1).movedim(-1, dim)


def log_softmax(x: Tensor, dim: int, *_: Any) -> Tensor:
    """Its logarithms."""
    return x.movedim(dim, -1).log_softmax(-1).movedim(-1, dim)


def instance_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, variance: Tensor | None,
    of_call: bool, momentum: float, eps: float, *_: Any,
) -> Tensor:  # fmt: skip
    """Each channel of each sample less its mean, over its spread: a group of its own. Or by numbers that are known."""
    if not of_call:
        return functional.batch_norm(x, mean, variance, weight, bias, False, momentum, eps)
    return functional.group_norm(x, x.shape[1], weight, bias, eps)


def layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5,
    *_: Any,
) -> Tensor:  # fmt: skip
    """Over several axes: as if they were one."""
    line = x.flatten(-len(shape))
    weight, bias = (None if one is None else one.flatten() for one in (weight, bias))
    return functional.layer_norm(line, (math.prod(shape),), weight, bias, eps).reshape(x.shape)


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *more: Any, **how: Any) -> Tensor:
    """scaled_dot_product_attention of (n, length, width): one head."""
    if query.dim() != 3:
        raise NotApplicable("there is no C for attention of so many axes")
    mask = mask.unsqueeze(-3) if mask is not None and mask.dim() == 3 else mask
    query, key, value = (one.unsqueeze(1) for one in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value, mask, *more, **how).squeeze(1)


def softshrink(x: Tensor, by: float = 0.5) -> Tensor:
    """Nearer to zero by so much."""
    return torch.where(x > by, x - by, torch.where(x < -by, x + by, x * 0))


def pairs_far(one: Tensor, other: Tensor, power: float = 2.0, *_: Any) -> Tensor:
    """cdist: how far each of the one rows is from each of the others."""
    if power != 2:
        raise NotApplicable(f"there is no C for distances of order {power}")
    return (one.unsqueeze(-2) - other.unsqueeze(-3)).square().sum(-1).sqrt()


def bilinear(one: Tensor, other: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Products of the elements of two lines, weighted."""
    found = torch.stack([((one @ matrix) * other).sum(-1) for matrix in weight.unbind()], -1)
    return found if bias is None else found + bias


def padded(x: Tensor, pads: Sequence[int], mode: str = "constant", fill: float | None = None) -> Tensor:
    """pad: with what comes back from the other side; with anything else as PyTorch has it."""
    if mode != "circular":
        return functional.pad(x, list(pads), mode, fill)
    for place in range(len(pads) // 2):
        axis, (before, after) = x.dim() - 1 - place, pads[2 * place : 2 * place + 2]
        size = x.shape[axis]
        parts = [x.narrow(axis, size - before, before), x, x.narrow(axis, 0, after)]
        x = torch.cat([one for one in parts if one.shape[axis]], axis)
    return x


def columns(
    x: Tensor, kernel: Sequence[int], dilation: Sequence[int], padding: Sequence[int], stride: Sequence[int]
) -> Tensor:
    """im2col: the windows of images, one after the other."""
    if set(dilation) != {1}:
        raise NotApplicable("there is no C for windows with holes")
    x = functional.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    found = x.unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1])
    return found.permute(0, 1, 4, 5, 2, 3).reshape(len(x), x.shape[1] * math.prod(kernel), -1)


def transposed_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sequence[int] = (1,), padding: Sequence[int] = (0,),
    output_padding: Sequence[int] = (0,), groups: int = 1, dilation: Sequence[int] = (1,),
) -> Tensor:  # fmt: skip
    """conv_transpose1d and 2d whose windows overlap: each of the answer's places, modulo the stride, is a convolution
    of its own with every so many-th element of the window (Shi et al., CVPR 2016, arXiv:1609.05158, figure 5)."""
    axes = x.dim() - 2
    step, border, more, far = (of_axes(one, axes) for one in (stride, padding, output_padding, dilation))
    if axes == 1:
        x, weight = x.unsqueeze(2), weight.unsqueeze(2)
        step, border, more, far = (1, *step), (0, *border), (0, *more), (1, *far)
    kernel, size = weight.shape[2:], x.shape[2:]
    if set(far) != {1} or any(one < by for one, by in zip(kernel, step, strict=True)):
        raise NotApplicable("there is no C for transposed convolutions with holes")
    made = [(size[a] - 1) * step[a] - 2 * border[a] + kernel[a] + more[a] for a in (0, 1)]
    whole = [-(-(made[a] + border[a]) // step[a]) for a in (0, 1)]
    rows = []
    for first in range(step[0]):
        lines = []
        for second in range(step[1]):
            part = weight[:, :, first :: step[0], second :: step[1]].flip((2, 3))
            high, wide = part.shape[2:]
            sides = (wide - 1, whole[1] - size[1], high - 1, whole[0] - size[0])
            lines.append(functional.conv2d(functional.pad(x, sides), _turned(part, groups), None, 1, 0, 1, groups))
        rows.append(torch.stack(lines, -1))
    n, channels = rows[0].shape[:2]
    found = torch.stack(rows, 3).reshape(n, channels, whole[0] * step[0], whole[1] * step[1])
    found = found[:, :, border[0] : border[0] + made[0], border[1] : border[1] + made[1]]
    found = found if bias is None else found + bias.reshape(1, -1, 1, 1)
    return found.squeeze(2) if axes == 1 else found


def sampled(x: Tensor, grid: Tensor, mode: int, border: int, align_corners: bool) -> Tensor:
    """grid_sampler of images."""
    if x.dim() != 4:
        raise NotApplicable("there is no C for grid_sampler of volumes")
    found: Tensor = torch.ops.aten.grid_sampler_2d.default(x, grid, mode, border, align_corners)
    return found


def _turned(weight: Tensor, groups: int) -> Tensor:
    """A weight (inputs, outputs of a group, ...) as convolutions have it: (outputs, inputs of a group, ...)."""
    inputs, outputs, *kernel = weight.shape
    parts = weight.reshape(groups, inputs // groups, outputs, *kernel).transpose(1, 2)
    return parts.reshape(groups * outputs, inputs // groups, *kernel)


STANDING_IN: Mapping[str, Callable[..., Any]] = {
    "softmax": softmax, "_softmax": softmax, "log_softmax": log_softmax, "_log_softmax": log_softmax,
    "instance_norm": instance_norm, "layer_norm": layer_norm, "scaled_dot_product_attention": attention,
    "softshrink": softshrink, "cdist": pairs_far, "bilinear": bilinear, "pad": padded,
    "grid_sampler": sampled, "im2col": columns, "conv_transpose1d": transposed_convolution,
    "conv_transpose2d": transposed_convolution, **VOLUMES,
}  # fmt: skip
"""By the operator's name; asked where its own handler, if it has one, declines."""
