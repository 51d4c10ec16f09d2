"""Rounds the operands of a graph's products to int8 and back, so that training feels what quantization will do."""

from __future__ import annotations

from collections.abc import Set

import torch
from torch import Tensor, fx

aten = torch.ops.aten
LAYERS = (
    *(aten.linear.default, aten.conv1d.default, aten.conv2d.default, aten.conv3d.default),
    *(aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding, aten.convolution.default),
)
"""Operators whose second and third arguments are a weight, outputs first, and a bias."""
PRODUCTS = (aten.matmul.default, aten.bmm.default)
"""Operators whose two operands are activations."""


def insert(graph: fx.Graph, levels: int = 127, kept: Set[str] = frozenset()) -> int:
    """Have each product of a graph take rounded operands, but those whose nodes `kept` names; returns how many do.

    Weights of layers are rounded by channel, to so many `levels` on either side of zero, and the rest by tensor, as
    static int8 does.
    """
    rounded = (node for node in graph.nodes if node.op == "call_function" and node.target in (*LAYERS, *PRODUCTS))
    products = [node for node in rounded if node.name not in kept]
    for node in products:
        first, second, *rest = node.args
        with graph.inserting_before(node):
            left = graph.call_function(rounded_activation, (first,))
            if node.target in LAYERS:
                right = graph.call_function(rounded_weight, (second, levels))
            else:
                right = graph.call_function(rounded_activation, (second,))
        node.args = (left, right, *rest)
    return len(products)


def rounded_activation(value: Tensor) -> Tensor:
    """A tensor on the 256 levels between its least and its largest value, zero among them; gradients pass through.

    Source: Jacob et al., Quantization and Training of Neural Networks, CVPR 2018 (arXiv:1712.05877), sections 2 and 3.

    >>> rounded_activation(torch.tensor([0.0, 0.4, 1.0, 255.0]))
    tensor([  0.,   0.,   1., 255.])
    """
    with torch.no_grad():
        low, high = value.amin().clamp(max=0), value.amax().clamp(min=0)
        scale = ((high - low) / 255).clamp_min(torch.finfo(value.dtype).tiny)
        zero = (-low / scale).round().clamp(0, 255).to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(value, scale, zero, 0, 255)


def rounded_weight(value: Tensor, levels: int = 127) -> Tensor:
    """A weight on so many levels on either side of zero, in each of its output channels (its first axis).

    Gradients pass through.

    >>> rounded_weight(torch.tensor([[127.0, 0.4], [1.27, 0.004]]))
    tensor([[127.0000,   0.0000],
            [  1.2700,   0.0000]])
    """
    with torch.no_grad():
        largest = value.abs().amax(tuple(range(1, value.dim())))
        scale = (largest / levels).clamp_min(torch.finfo(value.dtype).tiny)
        zeros = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(value, scale, zeros, 0, -levels, levels)
