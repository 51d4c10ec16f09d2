"""The golden model: the integer graph in NumPy, exact. What the RTL is compared with, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from vivace.hardware.graph.integer import (
    Addition,
    Array,
    Flatten,
    IntegerGraph,
    MaximumPool,
    Operation,
    Product,
    Rescale,
    SumPool,
    Window,
)

_BLOCK_BYTES = 1 << 28


def run(graph: IntegerGraph, inputs: Array) -> Array:
    """The output of the graph for integer inputs [samples, channels, height, width], in blocks of samples."""
    return np.concatenate([values[-1] for values in _blocks(graph, inputs)])


def run_all(graph: IntegerGraph, inputs: Array) -> list[Array]:
    """Every value of the graph: the input first, the output last."""
    blocks = list(_blocks(graph, inputs))
    return [np.concatenate(parts) for parts in zip(*blocks, strict=True)]


def answers(graph: IntegerGraph, x: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Real inputs in, real outputs out: quantized, computed in integers, and scaled back."""
    return graph.dequantize(run(graph, graph.quantize(x)))


def _blocks(graph: IntegerGraph, inputs: Array) -> Iterator[list[Array]]:
    widest = max(_bytes_of(graph, number) for number in range(len(graph.operations)))
    step = max(1, _BLOCK_BYTES // widest)
    for start in range(0, len(inputs), step):
        values = [inputs[start : start + step]]
        for operation in graph.operations:
            values.append(_apply(operation, values))
        yield values


def _bytes_of(graph: IntegerGraph, number: int) -> int:
    operation, value = graph.operations[number], graph.values[number + 1]
    window = operation.weight[0].size if isinstance(operation, Product) else 16
    return 8 * max(value.elements, value.shape[1] * value.shape[2] * window)


def _apply(operation: Operation, values: list[Array]) -> Array:
    source = values[operation.sources[0]]
    match operation:
        case Product():
            return _product(operation, source)
        case MaximumPool():
            lowest = np.iinfo(np.int64).min
            largest: Array = _windows(source, operation.window, lowest).max((-2, -1))
            return np.clip(largest, operation.low, operation.high)
        case SumPool():
            return operation.rounding.apply(_windows(source, operation.window, 0).sum((-2, -1)) * operation.multiplier)
        case Addition():
            one, other = operation.multipliers
            return operation.rounding.apply(source * one + values[operation.second] * other)
        case Rescale():
            return operation.rounding.apply(source * operation.multiplier)
        case Flatten():
            return source.reshape(len(source), -1, 1, 1)


def _product(product: Product, source: Array) -> Array:
    """Sums in float64, which holds every integer up to 2^53 exactly; `accumulator_bits` is at most 32."""
    windows = _windows(source, product.window, 0)  # [samples, inputs, rows, columns, *kernel]
    samples, _, rows, columns = windows.shape[:4]
    outputs = len(product.weight)
    sums = np.empty((samples, outputs, rows, columns), np.int64)
    inputs, part = windows.shape[1] // product.groups, outputs // product.groups
    for group in range(product.groups):
        taken = windows[:, group * inputs : (group + 1) * inputs].transpose(0, 2, 3, 1, 4, 5)
        weight = product.weight[group * part : (group + 1) * part].reshape(part, -1)
        found = taken.reshape(samples * rows * columns, -1).astype(np.float64) @ weight.T.astype(np.float64)
        placed = found.astype(np.int64).reshape(samples, rows, columns, part)
        sums[:, group * part : (group + 1) * part] = placed.transpose(0, 3, 1, 2)
    column = (1, outputs, 1, 1)
    return product.rounding.apply((sums + product.bias.reshape(column)) * product.multiplier.reshape(column))


def _windows(source: Array, window: Window, outside: int) -> Array:
    """[samples, channels, rows, columns, *kernel]."""
    vertical, horizontal = window.padding
    padded = np.pad(source, ((0, 0), (0, 0), (vertical, vertical), (horizontal, horizontal)), constant_values=outside)
    seen = sliding_window_view(padded, window.kernel, axis=(2, 3))
    return seen[:, :, :: window.stride[0], :: window.stride[1]]
