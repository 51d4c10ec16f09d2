"""Operations of products, also in kernels that PyTorch's counter does not know, against counts by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from vivace.runtimes.capture import capture
from vivace.runtimes.graphs import counts
from vivace.runtimes.graphs.flops import counter


@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_is_counted_forward_and_backward(is_causal: bool) -> None:
    x = torch.randn(2, 4, 16, 8, requires_grad=True)
    seen = 16 * 17 // 2 if is_causal else 16 * 16
    forward = 2 * 2 * 4 * seen * (8 + 8)

    with counter() as found:
        loss = nn.functional.scaled_dot_product_attention(x, x, x, is_causal=is_causal).sum()
    assert found.get_total_flops() == forward

    with counter() as found:
        loss.backward()
    assert found.get_total_flops() == 5 * forward // 2


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_are_counted_once(kind: Any) -> None:
    layer = kind(8, 16, 2, bidirectional=True)
    x = torch.randn(7, 4, 8)
    forward = 2 * 7 * 4 * sum(weight.numel() for weight in layer.parameters() if weight.dim() == 2)

    with counter() as found:
        answer = layer(x)[0]
    assert found.get_total_flops() == forward
    with counter() as found:
        answer.sum().backward()
    assert found.get_total_flops() == pytest.approx(2 * forward, rel=0.25)  # the first step has no gradient to pass on

    model = capture(layer.eval(), (x,)).model
    assert counts.cost_of(model, [x]).flops == forward
