"""Ranges of time or memory: how much is covered by at least one of them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch


def covered(ranges: Iterable[tuple[float, float]]) -> float:
    """How much these ranges cover together, what several of them do counted once.

    >>> covered([(0, 4), (2, 6), (8, 9)])
    7.0
    """
    found, until = 0.0, -math.inf
    for start, end in sorted(ranges):
        found += max(0.0, end - max(start, until))
        until = max(until, end)
    return found


def extent(tensor: torch.Tensor) -> tuple[int, int]:
    """The addresses where the elements of a tensor begin and end: a part of those of what it is a view of.

    >>> start, end = extent(torch.zeros(10, 4)[2:4])
    >>> end - start
    32
    """
    if not tensor.numel():
        return tensor.data_ptr(), tensor.data_ptr()
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()
