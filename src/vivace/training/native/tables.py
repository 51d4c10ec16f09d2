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
        """The copies of the tables that are wanted, by their numbers; None for each where they are too large together.

        >>> RoundedTables().of([torch.ones(2), torch.ones(3)], [1])
        [tensor([1., 1., 1.], dtype=torch.bfloat16)]
        """
        taken = sum(columns[number].numel() * torch.bfloat16.itemsize for number in wanted)
        return [self._copy(number, columns[number]) if taken <= MOST_BYTES else None for number in wanted]

    def _copy(self, number: int, column: Tensor) -> Tensor:
        table, version, copy = self._kept.get(number, (None, 0, None))
        if copy is None or table is not column or version != column._version:
            copy = column.to(torch.bfloat16)
            self._kept[number] = column, column._version, copy
        return copy
