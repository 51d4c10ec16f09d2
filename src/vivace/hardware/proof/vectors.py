"""Test vectors: real inputs as far as there are any, and corners where arithmetic breaks first."""

from __future__ import annotations

import dataclasses

import numpy as np

from vivace.hardware.graph.integer import Array, IntegerGraph

FEWEST = 10_000


@dataclasses.dataclass(frozen=True, eq=False)
class Vectors:
    """Integer inputs [vectors, channels, height, width], and how many of them are of which kind."""

    inputs: Array
    real: int
    corner: int
    random: int

    def __len__(self) -> int:
        return len(self.inputs)


def vectors_of(graph: IntegerGraph, real: Array, count: int = FEWEST, seed: int = 0) -> Vectors:
    """At least `count` vectors: corners, then the real ones in turn, then random ones over the whole range.

    Corners are all lowest, all highest, zero, alternating, a single highest element at some places, and ramps. At
    least an eighth is random where the real ones would fill everything.
    """
    generator = np.random.default_rng(seed)
    low, high = graph.input.format.low, graph.input.format.high
    corners = _corners(graph.input.elements, low, high)
    room = max(0, count - len(corners))
    taken = min(len(real), room - room // 8)
    drawn = room - taken
    random = generator.integers(low, high + 1, (drawn, graph.input.elements))
    random[::2] = np.where(generator.random((len(random[::2]), 1)) < 0.5, random[::2] // 4, random[::2])
    flat = np.concatenate([corners, real[:taken].reshape(taken, graph.input.elements), random])
    return Vectors(flat.reshape(-1, *graph.input.shape).astype(np.int64), taken, len(corners), drawn)


def _corners(elements: int, low: int, high: int) -> Array:
    places = np.arange(elements)
    rows = [
        np.zeros(elements), np.full(elements, high), np.full(elements, low), np.where(places % 2, low, high),
        np.where(places % 2, high, low), np.where(places < elements // 2, high, low),
        low + places % (high - low + 1), high - places % (high - low + 1),
    ]  # fmt: skip
    singles = np.zeros((min(elements, 32), elements))
    chosen = np.linspace(0, elements - 1, len(singles)).astype(int)
    singles[np.arange(len(singles)), chosen] = high
    return np.concatenate([np.stack(rows), singles]).astype(np.int64)
