"""How operators that are made of others are taken apart, for those who know few of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions

from vivace.codegen.elementwise import FORMULAS
from vivace.codegen.operators.walk import OPERATORS
from vivace.core.errors import NotApplicable
from vivace.training.native.patches import patches, patches_backward


@functools.cache
def decomposed() -> Mapping[Any, Callable[..., Any]]:
    """By PyTorch's own table; attention as its definition has it. What has a handler, and what draws, stays whole."""
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
    others: dict[Any, Callable[..., Any]] = dict(core_aten_decompositions())
    return {
        **{one: how for one, how in others.items() if not _stays_whole(one)},
        **get_decompositions(composite),
        aten._safe_softmax.default: safe_softmax,
        aten._scaled_dot_product_flash_attention_for_cpu.default: attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward.default: attention_backward,
        aten.convolution.default: patches,
        aten.convolution_backward.default: patches_backward,
    }


def _stays_whole(one: Any) -> bool:
    name = one._schema.name.partition("::")[2]
    is_known = name in OPERATORS or name in FORMULAS
    return is_known or torch.Tag.nondeterministic_seeded in one.tags or one._schema.is_mutable or "dropout" in name


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
    heads = key.shape[1]
    key, value = (_repeated(one, query) for one in (key, value))
    shares = (_scores(query, key, is_causal, attn_mask, scale) - logsumexp.unsqueeze(-1)).exp()
    added = (given * out).float().sum(-1, keepdim=True)
    moved = shares * ((given @ value.transpose(-2, -1)).float() - added) * _factor(query, scale)
    narrow = moved.to(query.dtype)
    to_value = shares.to(given.dtype).transpose(-2, -1) @ given
    to_key = narrow.transpose(-2, -1) @ query
    return narrow @ key, _together(to_key, heads), _together(to_value, heads)


def _repeated(one: Tensor, query: Tensor) -> Tensor:
    """Keys or values that several heads of queries share, once for each of them."""
    more = query.shape[1] // one.shape[1]
    return one if more == 1 else one[:, :, None].expand(-1, -1, more, -1, -1).flatten(1, 2)


def _together(one: Tensor, heads: int) -> Tensor:
    """What the heads give that share keys or values (`heads` of these), added up."""
    return one if one.shape[1] == heads else one.reshape(len(one), heads, -1, *one.shape[2:]).sum(2)


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
