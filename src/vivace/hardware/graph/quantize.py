"""Quantization: a network in real numbers and calibration data in, an integer graph out."""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vivace.core.errors import UnsupportedModel, UsageError
from vivace.hardware.graph.integer import (
    MOST_ACCUMULATOR_BITS,
    MOST_SHIFT,
    MULTIPLIER_BITS,
    Addition,
    Array,
    Flatten,
    Format,
    IntegerGraph,
    MaximumPool,
    Operation,
    Product,
    Rescale,
    Rounding,
    SumPool,
    Value,
)
from vivace.hardware.graph.layers import Add, Affine, Clamp, Flat, Layer, Network, Pool, Real
from vivace.hardware.graph.scales import rounded_weights, scale_of, weight_scales, wide_scale_of

OUTPUT_BITS = 16
"""Of the network's answer: scores that differ a little must not become equal."""
_HEADROOM = 1.25
_FINEST = 1 / 512
"""Of the coarsest output's scale: finer ones are not used, so that one shift suits the multipliers of all outputs."""
_BIAS_STEPS = 1 << 24


@dataclasses.dataclass(frozen=True)
class Precision:
    """Bits of weights and activations, 1 to 8 each. `layers` sets them apart for layers by name or pattern, as
    (pattern, weights, activations); the last that fits counts. A signed activation takes 2 bits at the least.

    Raises UsageError for other numbers.

    >>> Precision(8, 8, (("head", 4, 8),)).of("head")
    (4, 8)
    """

    weights: int = 8
    activations: int = 8
    layers: tuple[tuple[str, int, int], ...] = ()

    def __post_init__(self) -> None:
        for weights, activations in [(self.weights, self.activations), *(entry[1:] for entry in self.layers)]:
            for what, bits in (("weight", weights), ("activation", activations)):
                if type(bits) is not int or not 1 <= bits <= 8:
                    raise UsageError(f"{what} bits (--{what}-bits) are {bits!r}; allowed are whole numbers from 1 to 8")

    def of(self, name: str) -> tuple[int, int]:
        """(weight bits, activation bits) of a layer."""
        fitting = [(w, a) for pattern, w, a in self.layers if fnmatch.fnmatchcase(name, pattern)]
        return fitting[-1] if fitting else (self.weights, self.activations)


def quantize(network: Network, calibration: Sequence[Tensor], precision: Precision = Precision()) -> IntegerGraph:
    """The network in integers: scales fitted to what its values are for the calibration samples.

    `calibration` are inputs [samples, *shape] in real numbers. A value that is never negative there, or by its
    activation, is unsigned. What quantization does to the mean of a product is put right in its bias.

    Raises UsageError without calibration samples and for a layer pattern that fits none, UnsupportedModel for a layer
    whose sums need more than 32 bits.
    """
    if not calibration:
        raise UsageError("there are no samples to calibrate with; give data, or an example call")
    _check_patterns(network, precision)
    seen = _values(network, calibration)
    values = [_input_value(network, seen[0], precision)]
    operations: list[Operation] = []
    for number, layer in enumerate(network.layers):
        is_last = number == len(network.layers) - 1
        value = _value_of(layer, seen[number + 1], values, precision, is_last)
        operations.append(_operation(layer, values, value, seen, precision))
        values.append(value)
    return IntegerGraph(network.name, tuple(values), tuple(operations))


def _check_patterns(network: Network, precision: Precision) -> None:
    names = [layer.name for layer in network.layers]
    for pattern, *_ in precision.layers:
        if not fnmatch.filter(names, pattern):
            raise UsageError(f"bits were given for {pattern!r}, which no layer answers to; they are {', '.join(names)}")


def _values(network: Network, calibration: Sequence[Tensor]) -> list[Real]:
    runs = [network.run(part) for part in calibration]
    return [torch.cat(parts).numpy() for parts in zip(*runs, strict=True)]


def _input_value(network: Network, seen: Real, precision: Precision) -> Value:
    form = _format(precision.activations, bool(seen.min(initial=0.0) < 0))
    return Value(network.shape, form, scale_of(seen, form))


def _format(bits: int, signed: bool) -> Format:
    return Format(max(bits, 2) if signed else bits, signed)


def _value_of(layer: Layer, seen: Real, values: list[Value], precision: Precision, is_last: bool) -> Value:
    source = values[layer.sources[0]]
    keeps = isinstance(layer.kind, Flat) or (isinstance(layer.kind, Pool) and not layer.kind.average)
    if keeps:
        return Value(layer.shape, source.format, source.scale)
    if is_last:
        form = Format(OUTPUT_BITS, signed=True)
        return Value(layer.shape, form, wide_scale_of(seen, form, _HEADROOM))
    signed = layer.clamp.low < 0 and bool(seen.min(initial=0.0) < 0)
    form = _format(precision.of(layer.name)[1], signed)
    return Value(layer.shape, form, scale_of(seen, form))


def _operation(layer: Layer, values: list[Value], value: Value, seen: list[Real], precision: Precision) -> Operation:
    sources = [values[source] for source in layer.sources]
    low, high = _bounds(layer.clamp, value)
    match layer.kind:
        case Affine():
            return _product(layer, layer.kind, sources[0], value, seen[layer.sources[0]], precision)
        case Pool(window=window, average=False):
            return MaximumPool(layer.name, layer.sources[0], window, low, high)
        case Pool(window=window):
            count = math.prod(window.kernel)
            multipliers, shift = _multipliers(np.array([sources[0].scale / (count * value.scale)]), layer.name)
            bits = _signed_bits(count * max(abs(sources[0].format.low), sources[0].format.high))
            return SumPool(layer.name, layer.sources[0], window, int(multipliers[0]), Rounding(shift, low, high), bits)
        case Add():
            ratios = np.array([source.scale / value.scale for source in sources])
            multipliers, shift = _multipliers(ratios, layer.name)
            both = (int(multipliers[0]), int(multipliers[1]))
            return Addition(layer.name, layer.sources[0], layer.sources[1], both, Rounding(shift, low, high))
        case Flat():
            return Flatten(layer.name, layer.sources[0])
        case _:
            multipliers, shift = _multipliers(np.array([sources[0].scale / value.scale]), layer.name)
            low, high = _bounds(_own_clamp(layer), value)
            return Rescale(layer.name, layer.sources[0], int(multipliers[0]), Rounding(shift, low, high))


def _own_clamp(layer: Layer) -> Clamp:
    return layer.clamp.after(layer.kind) if isinstance(layer.kind, Clamp) else layer.clamp


def _bounds(clamp: Clamp, value: Value) -> tuple[int, int]:
    """The activation's limits as integers of a value, within its format."""
    form = value.format
    low = form.low if clamp.low == -math.inf else math.floor(clamp.low / value.scale + 0.5)
    high = form.high if clamp.high == math.inf else math.floor(clamp.high / value.scale + 0.5)
    low = min(max(low, form.low), form.high)
    return low, max(min(high, form.high), low)


def _product(layer: Layer, kind: Affine, source: Value, value: Value, x: Real, precision: Precision) -> Product:
    bits = precision.of(layer.name)[0]
    scales = weight_scales(kind.weight, bits)
    bias_reach = np.abs(kind.bias) / (source.scale * _BIAS_STEPS)
    scales = np.maximum(np.maximum(scales, scales.max() * _FINEST), bias_reach)
    weight = rounded_weights(kind.weight, scales, bits)
    lost = kind.weight - weight * scales.reshape(-1, 1, 1, 1)
    bias = np.rint((kind.bias + _mean_effect(lost, x, kind.groups)) / (source.scale * scales)).astype(np.int64)
    multipliers, shift = _multipliers(source.scale * scales / value.scale, layer.name)
    reach = max(abs(source.format.low), source.format.high)
    accumulator = _signed_bits(int((np.abs(weight).reshape(len(weight), -1).sum(1) * reach + np.abs(bias)).max()))
    if accumulator > MOST_ACCUMULATOR_BITS:
        raise UnsupportedModel(
            f"layer {layer.name}: its sums need {accumulator} bits, and {MOST_ACCUMULATOR_BITS} are allowed; give it "
            "fewer bits for weights or activations"
        )
    low, high = _bounds(layer.clamp, value)
    return Product(
        layer.name, layer.sources[0], kind.window, kind.groups, weight, bias, multipliers, Rounding(shift, low, high),
        bits, accumulator,
    )  # fmt: skip


def _mean_effect(lost: Real, x: Real, groups: int) -> Real:
    """What the rounding of weights takes from the mean of each output, given the mean of each input channel.

    Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, arXiv:1906.04721,
    section 4.2, with means from calibration data.
    """
    means = x.mean((0, 2, 3))
    part = len(lost) // groups
    inputs = lost.shape[1]
    taken = np.stack([means[(output // part) * inputs :][:inputs] for output in range(len(lost))])
    effect: Real = (lost.sum((2, 3)) * taken).sum(1)
    return effect


def _multipliers(ratios: Real, name: str) -> tuple[Array, int]:
    """Ratios as integers of at most 16 bits over one power of two: ratio = multiplier / 2^shift."""
    largest = float(ratios.max())
    most = (1 << MULTIPLIER_BITS) - 1
    shift = min(MOST_SHIFT, math.floor(math.log2(most / largest)))
    if shift < 0:
        raise UnsupportedModel(
            f"layer {name}: its result is {largest:.3g} times finer than its sums; give it more bits for weights"
        )
    return np.minimum(np.rint(ratios * 2.0**shift), most).astype(np.int64), shift


def _signed_bits(magnitude: int) -> int:
    return max(2, magnitude.bit_length() + 1)
