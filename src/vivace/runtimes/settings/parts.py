"""Calls of any number of samples, answered by programs that were compiled for some numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from vivace.core.signature import Signature
from vivace.runtimes.settings.around import Run


def in_parts(runs: Mapping[int, Run], signature: Signature) -> Run:
    """A run for any number of samples, made of runs for some numbers: a call is answered in parts of these sizes, the
    last one filled up with copies of a sample whose answers are dropped."""
    axes = [spec.batch_axis for spec in signature.inputs]
    joined = [spec.batch_axis for spec in signature.outputs]
    first = next(i for i, axis in enumerate(axes) if axis is not None)

    def run(leaves: Sequence[Tensor]) -> Sequence[Tensor]:
        size = leaves[first].shape[axes[first]]  # type: ignore[index]
        exact = runs.get(size)
        if exact is not None:
            return exact(leaves)
        answers = [
            _cut(runs[whole](_filled(leaves, axes, start, length, whole)), joined, length)
            for start, length, whole in parts_of(size, tuple(runs))
        ]
        return [
            values[0] if axis is None else torch.cat(values, axis)
            for values, axis in zip(zip(*answers, strict=True), joined, strict=True)
        ]

    return run


def parts_of(size: int, compiled: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """A call's parts, as (first sample, samples, samples that it is filled up to): the largest that fit, then one more.

    >>> list(parts_of(19, (1, 8)))
    [(0, 8, 8), (8, 8, 8), (16, 3, 8)]
    """
    largest, start = max(compiled), 0
    while size - start > largest:
        yield start, largest, largest
        start += largest
    yield start, size - start, min(whole for whole in compiled if whole >= size - start)


def _filled(leaves: Sequence[Tensor], axes: Sequence[int | None], start: int, length: int, whole: int) -> list[Tensor]:
    chosen = torch.arange(start, start + whole).clamp(max=start + length - 1)
    return [leaf if axis is None else leaf.index_select(axis, chosen) for leaf, axis in zip(leaves, axes, strict=True)]


def _cut(answers: Sequence[Tensor], axes: Sequence[int | None], length: int) -> list[Tensor]:
    return [
        answer if axis is None else answer.narrow(axis, 0, length) for answer, axis in zip(answers, axes, strict=True)
    ]
