"""Whose samples are whose: a batch divided among ranks, every sample once, however many ranks there are."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch.utils import _pytree as pytree

from vivace.core.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Part:
    """The rows from `start` on, `rows` of the `whole` batch's. Where there are more ranks than rows, some compute a row
    that is another's and does not count (`counts`), so that they can take part in what all do together.

    >>> [Part.of(5, number, 2) for number in range(2)]
    [Part(start=0, rows=3, whole=5, counts=True), Part(start=3, rows=2, whole=5, counts=True)]
    """

    start: int
    rows: int
    whole: int
    counts: bool = True

    @staticmethod
    def of(whole: int, number: int, count: int) -> Part:
        """The part of rank `number` of `count`: all parts are equal but for one row."""
        rows, larger = divmod(whole, count)
        start = number * rows + min(number, larger)
        rows += number < larger
        return Part(start, rows, whole) if rows else Part(0, 1, whole, counts=False)

    @property
    def share(self) -> float:
        """Its share of the batch's mean."""
        return self.rows / self.whole if self.counts else 0.0


@dataclasses.dataclass(frozen=True)
class Share:
    """What of a batch one rank computes."""

    batch: Any
    part: Part


def cut(batch: Any, number: int, count: int) -> Share:
    """A rank's share of a whole batch: its rows of every tensor, along the first axis; what is no tensor goes to each.

    Raises UsageError where the tensors' first lengths differ, or there is none.

    >>> [cut(torch.arange(5), number, 2).batch.tolist() for number in range(2)]
    [[0, 1, 2], [3, 4]]
    """
    if isinstance(batch, Share):
        return batch
    leaves, spec = pytree.tree_flatten(batch)
    sizes = {leaf.shape[0] for leaf in leaves if torch.is_tensor(leaf) and leaf.ndim}
    if len(sizes) != 1:
        raise UsageError(
            f"a batch cannot be divided among processes: its tensors have first lengths {sorted(sizes)}; allowed is "
            "one length, of samples, for all"
        )
    part = Part.of(sizes.pop(), number, count)
    mine = [leaf[part.start : part.start + part.rows] if torch.is_tensor(leaf) and leaf.ndim else leaf
            for leaf in leaves]  # fmt: skip
    return Share(pytree.tree_unflatten(mine, spec), part)
