"""Tensors of the model and of the batch, as C is given them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch

from vivace.codegen.arrays import FLOAT, LONG
from vivace.core.errors import NotApplicable

GIVEN: dict[object, str] = {torch.float32: FLOAT, torch.int64: LONG}


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One tensor, dense."""

    shape: tuple[int, ...]
    kind: str

    @property
    def matrix(self) -> tuple[int, int]:
        """How many rows it has along its first axis, and how many elements each of them has.

        >>> Leaf((4, 2, 3), "float").matrix, Leaf((), "float").matrix
        ((4, 6), (1, 1))
        """
        return (self.shape[0] if self.shape else 1), math.prod(self.shape[1:])


def leaf_of(whose: str, shape: Sequence[int], dtype: object) -> Leaf:
    """A tensor of the model's or the batch's (`whose`). Raises NotApplicable for types that C is not given."""
    kind = GIVEN.get(dtype)
    if kind is None:
        raise NotApplicable(f"the {whose} holds a tensor of {dtype}; a compiled step takes float32 and int64")
    return Leaf(tuple(int(size) for size in shape), kind)
