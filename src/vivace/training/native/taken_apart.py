"""How operators that are made of others are taken apart, for those who know few of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import get_decompositions

from vivace.core.errors import NotApplicable


@functools.cache
def decomposed() -> Mapping[Any, Callable[..., Any]]:
    """By PyTorch's own table; attention as its definition has it."""
    aten = torch.ops.aten
    composite = (
        aten._log_softmax, aten._log_softmax_backward_data, aten._softmax, aten._softmax_backward_data, aten.gelu,
        aten.gelu_backward, aten.silu, aten.silu_backward, aten.leaky_relu, aten.leaky_relu_backward, aten.softplus,
        aten.softplus_backward, aten.elu, aten.elu_backward, aten.hardtanh, aten.hardtanh_backward, aten.mse_loss,
        aten.mse_loss_backward, aten.smooth_l1_loss, aten.smooth_l1_loss_backward, aten.l1_loss,
        aten.binary_cross_entropy, aten.binary_cross_entropy_backward, aten.binary_cross_entropy_with_logits,
        aten.native_layer_norm, aten.native_layer_norm_backward, aten.addcmul, aten.addcdiv, aten.square,
        aten.log_sigmoid_forward, aten.log_sigmoid_backward, aten.hardswish, aten.hardswish_backward,
        aten.tril, aten.triu, aten.native_batch_norm, aten.native_batch_norm_backward, aten.huber_loss,
        aten.huber_loss_backward,
    )  # fmt: skip
    return {
        **get_decompositions(composite),
        aten._safe_softmax.default: safe_softmax,
        aten._scaled_dot_product_flash_attention_for_cpu.default: attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward.default: attention_backward,
        aten.convolution.default: patches,
        aten.convolution_backward.default: patches_backward,
    }


def safe_softmax(scores: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """Softmax; where all scores are minus infinity, zeros."""
    _, exponentials, total = _exponentials(scores if dtype is None else scores.to(dtype), dim)
    return exponentials / total


def _exponentials(scores: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """What is subtracted from scores, their exponentials after that, and what those add up to along an axis. Where all
    scores are minus infinity, as of a query that sees no key: zero, zeros, one, so that shares are zeros."""
    high = scores.amax(dim, keepdim=True)
    high = torch.where(high == -math.inf, 0.0, high)
    exponentials = (scores - high).exp()
    total = exponentials.sum(dim, keepdim=True)
    return high, exponentials, torch.where(total == 0, 1.0, total)


def attention(
    query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0, is_causal: bool = False, *,
    attn_mask: Tensor | None = None, scale: float | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Attention of (n, heads, length, width), and the logarithms of what its exponentials add up to."""
    if dropout:
        raise NotApplicable("attention drops shares at random, and compiled code would draw others")
    key, value = (_repeated(one, query) for one in (key, value))
    scores = _scores(query, key, is_causal, attn_mask, scale)
    high, exponentials, total = _exponentials(scores, -1)
    found = (exponentials / total).to(value.dtype) @ value
    return found.transpose(1, 2).contiguous().transpose(1, 2), (high + total.log()).squeeze(-1)


def attention_backward(
    given: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, logsumexp: Tensor, dropout: float,
    is_causal: bool, *, attn_mask: Tensor | None = None, scale: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Its gradients (Dao et al., FlashAttention, 2022, algorithm 4, arXiv:2205.14135): shares are computed anew."""
    few = key.shape
    key, value = (_repeated(one, query) for one in (key, value))
    shares = (_scores(query, key, is_causal, attn_mask, scale) - logsumexp.unsqueeze(-1)).exp()
    added = (given * out).float().sum(-1, keepdim=True)
    moved = shares * ((given @ value.transpose(-2, -1)).float() - added) * _factor(query, scale)
    narrow = moved.to(query.dtype)
    to_value = shares.to(given.dtype).transpose(-2, -1) @ given
    to_key = narrow.transpose(-2, -1) @ query
    return narrow @ key, _together(to_key, few), _together(to_value, few)


def _repeated(one: Tensor, query: Tensor) -> Tensor:
    """Keys or values that several heads of queries share, once for each of them."""
    (n, heads, length, width), more = one.shape, query.shape[1] // one.shape[1]
    if more == 1:
        return one
    return one[:, :, None].expand(n, heads, more, length, width).reshape(n, heads * more, length, width)


def _together(one: Tensor, few: torch.Size) -> Tensor:
    """What the heads give that share keys or values (`few` heads of them), added up."""
    if one.shape[1] == few[1]:
        return one
    return one.reshape(few[0], few[1], one.shape[1] // few[1], *few[2:3], one.shape[3]).sum(2)


def _scores(query: Tensor, key: Tensor, is_causal: bool, mask: Tensor | None, scale: float | None) -> Tensor:
    found = (query @ key.transpose(-2, -1)).float() * _factor(query, scale)
    if mask is not None:
        found = found + mask
    if is_causal:
        asked, seen = (torch.arange(size) for size in found.shape[-2:])
        found = torch.where(seen <= asked[:, None], found, -math.inf)
    return found


def _factor(query: Tensor, scale: float | None) -> float:
    return 1 / math.sqrt(query.shape[-1]) if scale is None else scale


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
