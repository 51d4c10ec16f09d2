"""The layers of an integer graph as matrix products: their sizes, and their operands from real data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from vivace.core.errors import ProofFailed
from vivace.hardware.array.chip import Chip
from vivace.hardware.array.cycles import Gemm, compute_cycles
from vivace.hardware.array.simulate import Operands
from vivace.hardware.array.sparse import is_two_of_four
from vivace.hardware.graph import golden
from vivace.hardware.graph.integer import Array, Flatten, IntegerGraph, Product


@dataclasses.dataclass(frozen=True)
class ArrayLayer:
    """A layer's name and its product for a batch."""

    name: str
    gemm: Gemm


def layers_of(graph: IntegerGraph, batch: int = 1) -> tuple[ArrayLayer, ...]:
    """Each linear layer and convolution as a product, with a row for each place of each sample of the batch."""
    return tuple(ArrayLayer(product.name, _gemm(graph, number, product, batch)) for number, product in _products(graph))


def beside(graph: IntegerGraph) -> tuple[str, ...]:
    """The operations that are not the array's and take work: pools, additions, rescaling."""
    return tuple(operation.name for operation in graph.operations if not isinstance(operation, (Product, Flatten)))


def operands_of(graph: IntegerGraph, inputs: Array) -> tuple[Operands, ...]:
    """The first group of each layer, with the activations that these inputs make in the golden model.

    The sums of the product, with the layer's bias and rounding, are the golden model's next value: checked here, and
    ProofFailed where they are not.
    """
    values = golden.run_all(graph, inputs)
    found = []
    for number, product in _products(graph):
        part = len(product.weight) // product.groups
        weights = product.weight[:part].reshape(part, -1).T
        activations = _rows(product, values[product.source])
        signed = graph.values[product.source].format.signed
        _check_golden(product, activations @ weights, values[number + 1])
        found.append(Operands(product.name, activations, weights, signed))
    return tuple(found)


def cut(product: Operands, chip: Chip, cycles: int) -> Operands:
    """A part of a product that the array computes in so many cycles: fewer rows, then fewer columns, then less depth.

    It is a product like any other, and its sums are compared as any other's; a few tiles always remain.
    """
    activations, weights = product.activations, product.weights

    def longer() -> bool:
        gemm = Gemm(len(activations), weights.shape[1], len(weights))
        return compute_cycles(gemm, chip) > cycles

    while longer() and len(activations) > 2 * chip.rows + 1:
        activations = activations[: max(2 * chip.rows + 1, len(activations) // 2)]
    while longer() and weights.shape[1] > 2 * chip.columns + 1:
        weights = weights[:, : max(2 * chip.columns + 1, weights.shape[1] // 2)]
    while longer() and len(weights) > 4 * chip.rows + 4:
        depth = max(4 * chip.rows + 4, len(weights) // 2)
        activations, weights = activations[:, :depth], weights[:depth]
    return dataclasses.replace(product, activations=activations, weights=weights)


def _products(graph: IntegerGraph) -> Iterator[tuple[int, Product]]:
    for number, operation in enumerate(graph.operations):
        if isinstance(operation, Product):
            yield number, operation


def _gemm(graph: IntegerGraph, number: int, product: Product, batch: int) -> Gemm:
    _, height, width = graph.values[number + 1].shape
    part = len(product.weight) // product.groups
    flat = product.weight.reshape(product.groups, part, -1)
    sparse = all(is_two_of_four(group.T) for group in flat)
    return Gemm(batch * height * width, part, flat.shape[2], product.groups, sparse)


def _rows(product: Product, source: Array) -> Array:
    """Activations of the first group, [samples * places, inputs of the group * kernel]."""
    vertical, horizontal = product.window.padding
    taken = source[:, : product.weight.shape[1]]
    padded = np.pad(taken, ((0, 0), (0, 0), (vertical, vertical), (horizontal, horizontal)))
    seen = sliding_window_view(padded, product.window.kernel, axis=(2, 3))
    seen = seen[:, :, :: product.window.stride[0], :: product.window.stride[1]]
    return seen.transpose(0, 2, 3, 1, 4, 5).reshape(-1, product.weight[0].size)


def _check_golden(product: Product, sums: Array, value: Array) -> None:
    part = sums.shape[1]
    rounded = product.rounding.apply((sums + product.bias[:part]) * product.multiplier[:part])
    expected = value[:, :part].transpose(0, 2, 3, 1).reshape(-1, part)
    if not np.array_equal(rounded, expected):
        row, column = np.argwhere(rounded != expected)[0]
        raise ProofFailed(
            f"{product.name} as a matrix product is not the golden model's layer: place {row}, output {column}: "
            f"expected {expected[row, column]}, received {rounded[row, column]}; no report is written"
        )
