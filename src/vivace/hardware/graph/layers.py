"""The network in real numbers, in the words of the hardware: products, pools, additions and clamps, with their weights.

Arrays of values are [samples, channels, height, width], as in the integer graph.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vivace.hardware.graph.integer import Window

Real = np.ndarray[Any, np.dtype[np.float64]]


@dataclasses.dataclass(frozen=True, eq=False)
class Affine:
    """A convolution or a linear layer: `weight` is [outputs, inputs / groups, *kernel], `bias` [outputs]."""

    weight: Real
    bias: Real
    window: Window = Window()
    groups: int = 1


@dataclasses.dataclass(frozen=True)
class Pool:
    """The maximum of each window, or its average (`average`; what lies outside the map counts as 0)."""

    window: Window
    average: bool


@dataclasses.dataclass(frozen=True)
class Add:
    """The sum of two maps."""


@dataclasses.dataclass(frozen=True)
class Clamp:
    """An activation that clips: ReLU is [0, inf), ReLU6 [0, 6]."""

    low: float = -math.inf
    high: float = math.inf

    def after(self, first: Clamp) -> Clamp:
        """One clamp for `first` and then this one."""
        low = min(max(first.low, self.low), self.high)
        return Clamp(low, max(min(first.high, self.high), low))


@dataclasses.dataclass(frozen=True)
class Normalization:
    """x * scale + shift for each channel: batch normalization at inference, before it is folded away."""

    scale: tuple[float, ...]
    shift: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Flat:
    """A map as a vector, channels first."""


Kind = Affine | Pool | Add | Clamp | Normalization | Flat


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """One step: what it is, which values it reads (value 0 is the input, layer i gives value i + 1), its output shape.

    `clamp` is the activation that is applied to what it gives.
    """

    name: str
    kind: Kind
    sources: tuple[int, ...]
    shape: tuple[int, int, int]
    clamp: Clamp = Clamp()


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """Layers in order; the last one gives the output. `shape` is that of one input sample."""

    name: str
    shape: tuple[int, int, int]
    layers: tuple[Layer, ...]

    def run(self, x: Tensor) -> list[Tensor]:
        """Every value for real inputs [samples, *shape]: the input first, the output last, in float64."""
        values = [x.double().reshape(-1, *self.shape)]
        with torch.no_grad():
            for layer in self.layers:
                found = _compute(layer.kind, [values[source] for source in layer.sources])
                values.append(found.clamp(layer.clamp.low, layer.clamp.high))
        return values

    def users(self, value: int) -> list[int]:
        """The layers that read a value."""
        return [number for number, layer in enumerate(self.layers) if value in layer.sources]


def simplified(network: Network) -> Network:
    """The same network with normalizations folded into products and clamps taken into the layers before them."""
    layers = [_without_normalization(layer) for layer in _folded(network).layers]
    merged = _flattened_last(Network(network.name, network.shape, tuple(layers)))
    while (found := _clamp_to_merge(merged)) is not None:
        merged = _merged(merged, found)
    return merged


def _compute(kind: Kind, sources: list[Tensor]) -> Tensor:
    x = sources[0]
    match kind:
        case Affine(window=window):
            weight, bias = torch.from_numpy(kind.weight), torch.from_numpy(kind.bias)
            return functional.conv2d(x, weight, bias, window.stride, window.padding, 1, kind.groups)
        case Pool(window=window, average=True):
            return functional.avg_pool2d(x, window.kernel, window.stride, window.padding)
        case Pool(window=window):
            return functional.max_pool2d(x, window.kernel, window.stride, window.padding)
        case Add():
            return x + sources[1]
        case Normalization():
            scale, shift = (torch.tensor(part, dtype=torch.float64)[:, None, None] for part in (kind.scale, kind.shift))
            return x * scale + shift
        case Flat():
            return x.flatten(1)[:, :, None, None]
        case Clamp():
            return x.clamp(kind.low, kind.high)


def _folded(network: Network) -> Network:
    """Normalizations folded into the product before them, where nothing else reads that product."""
    for number, layer in enumerate(network.layers):
        before = layer.sources[0] - 1
        if not isinstance(layer.kind, Normalization) or before < 0:
            continue
        product = network.layers[before]
        if isinstance(product.kind, Affine) and product.clamp == Clamp() and len(network.users(before + 1)) == 1:
            scale, shift = np.array(layer.kind.scale), np.array(layer.kind.shift)
            weight = product.kind.weight * scale.reshape(-1, 1, 1, 1)
            kind = dataclasses.replace(product.kind, weight=weight, bias=product.kind.bias * scale + shift)
            changed = dataclasses.replace(product, kind=kind, clamp=layer.clamp)
            return _folded(_removed(network, number, before, changed))
    return network


def _without_normalization(layer: Layer) -> Layer:
    """A normalization that nothing could take in, as a product of each channel with itself alone."""
    if not isinstance(layer.kind, Normalization):
        return layer
    weight = np.array(layer.kind.scale).reshape(-1, 1, 1, 1)
    kind = Affine(weight, np.array(layer.kind.shift), groups=len(weight))
    return dataclasses.replace(layer, kind=kind)


def _flattened_last(network: Network) -> Network:
    """The network with clamps before the flattening that they follow, which can take in none."""
    layers = list(network.layers)
    for number, layer in enumerate(layers):
        before = layer.sources[0] - 1
        flat = layers[before] if before >= 0 else layer
        if isinstance(layer.kind, Clamp) and isinstance(flat.kind, Flat) and len(network.users(before + 1)) == 1:
            shape = layers[flat.sources[0] - 1].shape if flat.sources[0] else network.shape
            layers[before] = dataclasses.replace(layer, sources=flat.sources, shape=shape)
            layers[number] = dataclasses.replace(flat, sources=layer.sources)
            return _flattened_last(dataclasses.replace(network, layers=tuple(layers)))
    return network


def _clamp_to_merge(network: Network) -> int | None:
    for number, layer in enumerate(network.layers):
        before = layer.sources[0] - 1
        if not isinstance(layer.kind, Clamp) or before < 0 or isinstance(network.layers[before].kind, Flat):
            continue
        if len(network.users(before + 1)) == 1:
            return number
    return None


def _merged(network: Network, number: int) -> Network:
    layer = network.layers[number]
    before = layer.sources[0] - 1
    assert isinstance(layer.kind, Clamp)
    clamp = layer.kind.after(network.layers[before].clamp)
    return _removed(network, number, before, dataclasses.replace(network.layers[before], clamp=clamp))


def _removed(network: Network, number: int, before: int, changed: Layer) -> Network:
    """The network without a layer: `changed` stands at `before` and gives what the removed layer gave."""

    def renamed(source: int) -> int:
        moved = before + 1 if source == number + 1 else source
        return moved - 1 if moved > number + 1 else moved

    kept = [changed if place == before else layer for place, layer in enumerate(network.layers) if place != number]
    layers = [dataclasses.replace(layer, sources=tuple(map(renamed, layer.sources))) for layer in kept]
    return Network(network.name, network.shape, tuple(layers))
