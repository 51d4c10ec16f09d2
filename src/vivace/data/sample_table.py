"""Samples as rows of tensors: one tensor for each leaf of a sample, in memory or mapped from a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from vivace.core.errors import NotApplicable
from vivace.data.replacement import Policy

CHUNK = 256
"""Samples that are read at once while a table is filled."""

Collect = Callable[[Sequence[int]], Any]


class Shape:
    """What one sample is made of: its structure, and the shape and type of each tensor in it, as they are stacked."""

    def __init__(self, batch: Any) -> None:
        """Read from a batch of one sample. Raises NotApplicable where it holds something else than tensors."""
        leaves, self.spec = pytree.tree_flatten(batch)
        if not leaves or not all(torch.is_tensor(leaf) and leaf.ndim and leaf.shape[0] == 1 for leaf in leaves):
            raise NotApplicable("samples hold something else than tensors and numbers")
        self.shapes: list[torch.Size] = [leaf.shape[1:] for leaf in leaves]
        self.dtypes: list[torch.dtype] = [leaf.dtype for leaf in leaves]

    @property
    def sample_bytes(self) -> int:
        """Of one sample."""
        pairs = zip(self.shapes, self.dtypes, strict=True)
        return max(1, sum(math.prod(shape) * int(dtype.itemsize) for shape, dtype in pairs))

    def empty(self, rows: int) -> list[torch.Tensor]:
        """Room in memory for so many samples."""
        return [torch.empty((rows, *shape), dtype=dtype) for shape, dtype in zip(self.shapes, self.dtypes, strict=True)]

    def why_not(self, leaves: Sequence[Any], spec: Any) -> str | None:
        """Why a batch's leaves do not fit the columns of this shape; None when they do."""
        if spec != self.spec:
            return "samples have different structures"
        for leaf, shape, dtype in zip(leaves, self.shapes, self.dtypes, strict=True):
            if not torch.is_tensor(leaf) or leaf.shape[1:] != shape or leaf.dtype != dtype:
                found = list(leaf.shape[1:]) if torch.is_tensor(leaf) else type(leaf).__name__
                return f"samples differ: {list(shape)} in {dtype}, and {found} in {getattr(leaf, 'dtype', '')}"
        return None


class SampleTable:
    """Some samples, as rows that batches are cut from. `numbers` says which sample is in which row."""

    def __init__(self, shape: Shape, columns: list[torch.Tensor], numbers: Sequence[int], samples: int) -> None:
        self.shape = shape
        self.columns = columns
        self.numbers = numbers
        self.is_whole = len(numbers) == samples
        self._rows = torch.full((samples,), -1, dtype=torch.int64)
        self._rows[torch.as_tensor(numbers, dtype=torch.int64)] = torch.arange(len(numbers))

    def rows_of(self, indices: torch.Tensor) -> torch.Tensor:
        """The rows of these samples; -1 for those that are not here."""
        return self._rows[indices]

    def batch(self, rows: torch.Tensor) -> Any:
        """These rows, copied."""
        return pytree.tree_unflatten([column.index_select(0, rows) for column in self.columns], self.shape.spec)

    def completed(self, indices: torch.Tensor, collect: Collect) -> Any:
        """The batch of these samples; those that are not here come from `collect`."""
        rows = self.rows_of(indices)
        is_here = rows >= 0
        if bool(is_here.all()):
            return self.batch(rows)
        fresh = collect(indices[~is_here].tolist())
        mended = merged(self.shape, [column.index_select(0, rows[is_here]) for column in self.columns], is_here, fresh)
        return collect(indices.tolist()) if mended is None else mended


def merged(shape: Shape, held: Sequence[torch.Tensor], is_held: torch.Tensor, fresh: Any) -> Any | None:
    """A batch of samples that were held and others that were read; None where these do not have the same shape."""
    leaves, spec = pytree.tree_flatten(fresh)
    if shape.why_not(leaves, spec) is not None:
        return None
    columns = shape.empty(len(is_held))
    for column, here, read in zip(columns, held, leaves, strict=True):
        column[is_held] = here
        column[~is_held] = read
    return pytree.tree_unflatten(columns, shape.spec)


def fill(shape: Shape, columns: Sequence[torch.Tensor], numbers: Sequence[int], collect: Collect) -> None:
    """Read samples into the rows of columns, CHUNK at a time. Raises NotApplicable where they cannot be stacked."""
    for start in range(0, len(numbers), CHUNK):
        chosen = numbers[start : start + CHUNK]
        leaves, spec = pytree.tree_flatten(_collected(chosen, collect))
        reason = shape.why_not(leaves, spec)
        if reason is not None:
            raise NotApplicable(f"among samples {chosen[0]} to {chosen[-1]}: {reason}")
        for column, leaf in zip(columns, leaves, strict=True):
            column[start : start + len(chosen)] = leaf


def _collected(numbers: Sequence[int], collect: Collect) -> Any:
    try:
        return collect(numbers)
    except (RuntimeError, TypeError) as error:
        raise NotApplicable(f"samples {numbers[0]} to {numbers[-1]} cannot be stacked: {error}") from error


class ReplacedSamples:
    """A table whose rows change by a replacement policy.

    A batch is made in two calls, both in the order of the batches: `begin` asks the policy for every sample and copies
    those that are held; `finish` takes in the samples that had to be read. Others may begin in between. What is never
    finished was never taken in, and is read again when it is asked for.
    """

    def __init__(self, shape: Shape, policy: Policy) -> None:
        self.shape = shape
        self.policy = policy
        self.hits = self.accesses = 0
        self._columns = shape.empty(policy.capacity)
        self._rows: dict[int, int] = {}
        self._free = list(range(policy.capacity))

    def begin(self, indices: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
        """All samples, the held ones' columns, and which are held."""
        numbers = indices.tolist()
        found = [self._rows.get(number, -1) for number in numbers]
        rows = torch.tensor(found)
        held = [column.index_select(0, rows[rows >= 0]) for column in self._columns]  # before a row is given away
        for number in numbers:
            dropped = self.policy.access(number).dropped
            if dropped is not None and dropped in self._rows:
                self._free.append(self._rows.pop(dropped))
        self.accesses += len(numbers)
        self.hits += sum(row >= 0 for row in found)
        return indices, held, rows >= 0

    def finish(self, indices: torch.Tensor, held: Sequence[torch.Tensor], is_held: torch.Tensor, fresh: Any) -> Any:
        """The batch; `fresh` are the samples that were not held, in their order, None where all were. None where they
        do not fit."""
        if fresh is None:
            return pytree.tree_unflatten(list(held), self.shape.spec)
        batch = merged(self.shape, held, is_held, fresh)
        if batch is None:
            return None
        for place, number in enumerate(indices[~is_held].tolist()):
            if number in self.policy and number not in self._rows:
                row = self._rows[number] = self._free.pop()
                for column, leaf in zip(self._columns, pytree.tree_leaves(fresh), strict=True):
                    column[row] = leaf[place]
        return batch
