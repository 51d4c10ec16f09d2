"""Copies of tables in bfloat16: for steps whose products round what they read, half the bytes to fetch in every one."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

MOST_BYTES = 1 << 28
"""Of all copies. Rows of larger tables are rounded when a batch takes them, in every epoch anew."""


class RoundedTables:
    """The copies that were made, each for as long as its table is the same tensor and nobody wrote to it."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Tensor, int, Tensor]] = {}

    def of(self, columns: Sequence[Tensor], wanted: Collection[int]) -> list[Tensor | None]:
        """For each table, its copy where that is wanted and small enough.

        >>> RoundedTables().of([torch.ones(2), torch.ones(3)], [1])
        [None, tensor([1., 1., 1.], dtype=torch.bfloat16)]
        """
        taken = sum(columns[number].numel() * 2 for number in wanted)
        if taken > MOST_BYTES:
            return [None] * len(columns)
        return [self._copy(number, column) if number in wanted else None for number, column in enumerate(columns)]

    def _copy(self, number: int, column: Tensor) -> Tensor:
        table, version, copy = self._kept.get(number, (None, 0, None))
        if copy is None or table is not column or version != column._version:
            copy = column.to(torch.bfloat16)
            self._kept[number] = column, column._version, copy
        return copy
