"""Counts the operations of products, also in the processor's own kernels, which PyTorch's counter does not know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, flop_registry

Formula = Callable[..., int]


def counter() -> FlopCounterMode:
    """PyTorch's counter of products, a multiply-add being 2, with what it does not know.

    >>> with counter() as found:
    ...     _ = torch.nn.functional.scaled_dot_product_attention(*(torch.ones(1, 2, 4, 8) for _ in range(3)))
    >>> found.get_total_flops()
    1024
    """
    return FlopCounterMode(display=False, custom_mapping={**_OWN})


def formula_of(operator: Any) -> Formula | None:
    """What counts a call of an operator (a packet such as torch.ops.aten.mm), from its arguments and `out_val`; None
    where it holds no product."""
    found: Formula | None = _OWN.get(operator) or flop_registry.get(operator)
    return found


def recurrent_flops(sequence: Tensor, weights: Sequence[Tensor]) -> int:
    """2 for each matrix weight, step and sample: `sequence` is steps x samples x features, in either order."""
    return 2 * sequence.shape[0] * sequence.shape[1] * sum(w.numel() for w in weights if w.dim() == 2)


def attention_flops(query: Tensor, key: Tensor, value: Tensor, is_causal: bool = False) -> int:
    """Two products for each query and each key that it sees; all of them, or those up to its own place."""
    queries, keys = query.shape[-2], key.shape[-2]
    seen = queries * keys
    if is_causal:  # the first query sees the first key, and each one more
        seen = sum(min(place + 1, keys) for place in range(queries))
    return 2 * query.shape[:-2].numel() * seen * (query.shape[-1] + value.shape[-1])


def _raw(formula: Callable[..., int]) -> Formula:
    """A formula of tensors as they are, whose other arguments it does not need."""

    def count(*arguments: Any, out_val: Any = None, **_: Any) -> int:
        return formula(*arguments)

    count._get_raw = True  # type: ignore[attr-defined]  # how PyTorch's counter is told so
    return count


_FORMULAE: Mapping[str, Callable[..., int]] = {
    "_scaled_dot_product_flash_attention_for_cpu": lambda *given: attention_flops(*given[:3], *given[4:5]),
    "_scaled_dot_product_flash_attention_for_cpu_backward": (
        lambda *given: 5 * attention_flops(given[1], given[2], given[3], given[7]) // 2
    ),
    "mkldnn_rnn_layer": lambda *given: recurrent_flops(given[0], given[1:3]),
    "mkldnn_rnn_layer_backward": lambda *given: 2 * recurrent_flops(given[0], given[1:3]),
    "_cudnn_rnn": lambda *given: recurrent_flops(given[0], given[1]),
    "_cudnn_rnn_backward": lambda *given: 2 * recurrent_flops(given[0], given[1]),
}
"""By the operator's name; a backward pass of attention has five products of the same size, one of them computed again
(Dao et al., FlashAttention, arXiv:2205.14135, algorithm 4)."""
_OWN = {
    getattr(torch.ops.aten, name): _raw(count) for name, count in _FORMULAE.items() if hasattr(torch.ops.aten, name)
}
