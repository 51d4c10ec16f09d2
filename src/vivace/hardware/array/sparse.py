"""Weights of which two in four are kept: values and 2-bit indices, and what they take to store."""

from __future__ import annotations

from typing import Any

import numpy as np

Integers = np.ndarray[Any, np.dtype[np.int64]]


def is_two_of_four(weights: Integers) -> bool:
    """Whether of every four weights along the first axis of [K, N] at most two are not zero."""
    groups = padded(weights, 4).reshape(-1, 4, weights.shape[1])
    return bool(((groups != 0).sum(1) <= 2).all())


def compress(weights: Integers) -> tuple[Integers, Integers, bool]:
    """Values and indices [steps, N] of weights [K, N], and whether they are 2:4.

    Each index is the place in its group of four. Weights that are not 2:4 keep all values, with their places, so that
    the same array runs them, in twice the steps.

    >>> compress(np.array([[0], [5], [0], [7], [3]]))[0].ravel().tolist()
    [5, 7, 3, 0]
    """
    if not is_two_of_four(weights):
        places = np.broadcast_to(np.arange(len(weights))[:, None] % 4, weights.shape)
        return weights, places.astype(np.int64), False
    groups = padded(weights, 4).reshape(-1, 4, weights.shape[1])
    order = np.argsort(groups == 0, axis=1, kind="stable")[:, :2]  # those that are not zero first, in their order
    values = np.take_along_axis(groups, order, 1)
    return values.reshape(-1, weights.shape[1]), order.reshape(-1, weights.shape[1]).astype(np.int64), True


def padded(values: Integers, multiple: int) -> Integers:
    """With rows of zeros at the end, up to a whole multiple."""
    return np.pad(values, ((0, -len(values) % multiple), (0, 0)))


def rows_of(values: Integers, width: int) -> Integers:
    """[steps, lanes, fields] cut into [blocks, steps, width, fields], with zeros where lanes are missing."""
    whole = np.pad(values, ((0, 0), (0, -values.shape[1] % width), (0, 0)))
    return whole.reshape(len(values), -1, width, values.shape[2]).transpose(1, 0, 2, 3)


def storage_bits(depth: int, columns: int, sparse: bool, bits: int = 8) -> int:
    """Bits of the weights [depth, columns] as stored: with 2:4 half the values and 2 bits each.

    >>> storage_bits(64, 64, True), storage_bits(64, 64, False)
    (20480, 32768)
    """
    return 2 * -(-depth // 4) * columns * (bits + 2) if sparse else depth * columns * bits
