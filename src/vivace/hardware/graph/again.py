"""The same integer graph computed again by PyTorch's own operators: the oracle that the golden model must equal."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vivace.hardware.graph.integer import (
    Addition,
    Array,
    Flatten,
    IntegerGraph,
    MaximumPool,
    Operation,
    Product,
    Rescale,
    Rounding,
    SumPool,
)


def run(graph: IntegerGraph, inputs: Array) -> Array:
    """The output for integer inputs, by torch.nn.functional: sums in float64 (exact below 2^53), rounding in int64."""
    values = [torch.from_numpy(inputs)]
    with torch.no_grad():
        for operation in graph.operations:
            values.append(_apply(operation, values))
    found: Array = values[-1].numpy()
    return found


def first_difference(graph: IntegerGraph, inputs: Array, golden: Array) -> tuple[int, int] | None:
    """The first (sample, element) where PyTorch disagrees with what the golden model gave; None where they are equal.

    Elements are counted in PyTorch's order, channels first.
    """
    unequal = (run(graph, inputs) != golden).reshape(len(golden), -1)
    if not unequal.any():
        return None
    sample = int(unequal.any(1).argmax())
    return sample, int(unequal[sample].argmax())


def _apply(operation: Operation, values: list[Tensor]) -> Tensor:
    x = values[operation.sources[0]]
    match operation:
        case Product():
            return _product(operation, x)
        case MaximumPool(window=window):
            pooled = functional.max_pool2d(x.double(), window.kernel, window.stride, window.padding)
            return pooled.long().clamp(operation.low, operation.high)
        case SumPool(window=window):
            summed = functional.avg_pool2d(x.double(), window.kernel, window.stride, window.padding, divisor_override=1)
            return _rounded(summed.round().long() * operation.multiplier, operation.rounding)
        case Addition():
            one, other = operation.multipliers
            return _rounded(torch.add(x * one, values[operation.second], alpha=other), operation.rounding)
        case Rescale():
            return _rounded(x * operation.multiplier, operation.rounding)
        case Flatten():
            return x.flatten(1)[:, :, None, None]


def _product(product: Product, x: Tensor) -> Tensor:
    weight, bias = torch.from_numpy(product.weight), torch.from_numpy(product.bias)
    if tuple(x.shape[2:]) == (1, 1) and product.window.kernel == (1, 1) and product.groups == 1:
        sums = functional.linear(x.flatten(1), weight.flatten(1), bias)[:, :, None, None]
    else:
        sums = functional.conv2d(
            x.double(), weight.double(), bias.double(), product.window.stride, product.window.padding, 1, product.groups
        ).long()
    return _rounded(sums * torch.from_numpy(product.multiplier)[:, None, None], product.rounding)


def _rounded(product: Tensor, rounding: Rounding) -> Tensor:
    divided = torch.div(product + rounding.half, 1 << rounding.shift, rounding_mode="floor")
    return divided.clamp(rounding.low, rounding.high)
