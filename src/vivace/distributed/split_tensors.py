"""Tensors that several ranks hold in parts. PyTorch's class of them takes a second to import, so only ranks do."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_split(tensor: object) -> TypeGuard[DTensor]:
    """Whether this rank holds a part of it."""
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def here(tensor: Tensor) -> Tensor:
    """What this rank holds of it."""
    return tensor.to_local() if is_split(tensor) else tensor
