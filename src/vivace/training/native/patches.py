"""Convolutions whose windows lie side by side, as products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def patches(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], *rest: Any) -> Any:
    """A convolution whose windows lie side by side, as those that begin a vision transformer and those of one place, as
    a product (NotImplemented for every other one)."""
    if not _side_by_side(x, weight, stride, rest):
        return NotImplemented
    rows = _rows_of_patches(x, weight)
    found = rows @ weight.flatten(1).t()
    found = found if bias is None else found + bias
    return found.view(x.shape[0], *_places(x, weight), -1).permute(0, 3, 1, 2).contiguous()


def patches_backward(given: Tensor, x: Tensor, weight: Tensor, _: Any, stride: Sequence[int], *rest: Any) -> Any:
    """The gradients of the same: of the images, the weight and the bias, where they are wanted."""
    *rest_of_call, wanted = rest
    if not _side_by_side(x, weight, stride, rest_of_call):
        return NotImplemented
    rows = given.permute(0, 2, 3, 1).reshape(-1, weight.shape[0])
    to_x = None
    if wanted[0]:
        high, wide = _places(x, weight)
        back = (rows @ weight.flatten(1)).view(x.shape[0], high, wide, *weight.shape[1:])
        to_x = back.permute(0, 3, 1, 4, 2, 5).reshape(x.shape)
    to_weight = (rows.t() @ _rows_of_patches(x, weight)).view(weight.shape) if wanted[1] else None
    return to_x, to_weight, rows.sum(0) if wanted[2] else None


def _side_by_side(x: Tensor, weight: Tensor, stride: Sequence[int], rest: Sequence[Any]) -> bool:
    """Whether the windows of a convolution of images touch and do not overlap."""
    padding, dilation, transposed, _, groups = rest
    window = weight.shape[2:]
    plain = not transposed and groups == 1 and not any(padding) and all(one == 1 for one in dilation)
    fits = all(size % one == 0 for size, one in zip(x.shape[2:], window, strict=True))
    return plain and x.dim() == 4 and list(stride) == list(window) and fits


def _places(x: Tensor, weight: Tensor) -> tuple[int, int]:
    return x.shape[2] // weight.shape[2], x.shape[3] // weight.shape[3]


def _rows_of_patches(x: Tensor, weight: Tensor) -> Tensor:
    """Each window of images as a row."""
    (n, channels), (high, wide) = x.shape[:2], _places(x, weight)
    apart = x.reshape(n, channels, high, weight.shape[2], wide, weight.shape[3])
    return apart.permute(0, 2, 4, 1, 3, 5).reshape(n * high * wide, -1)
