"""What is told of a weight that is stored in another form than it came in: by its layer's name, in exact bytes."""

from __future__ import annotations

from torch import Tensor
from torch.fx import Node

from vivace.core.layer import StoredWeight
from vivace.runtimes.graphs.layers import names_of


def stored_weight(node: Node, form: str, dense_bytes: int, stored_bytes: int) -> StoredWeight:
    """One layer's entry, by the name that lists of fusions and profiles give it."""
    return StoredWeight(names_of([node])[0], form, dense_bytes, stored_bytes)


def bytes_of(*tensors: Tensor | None) -> int:
    """How many bytes the numbers of these tensors take.

    >>> import torch
    >>> bytes_of(torch.zeros(3, 2), None)
    24
    """
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)
