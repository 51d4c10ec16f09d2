"""The child's side of a crew: reads samples, collates them, and lays them out in the memory that it shares."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree

from vivace.core.errors import UsageError
from vivace.training.feed import Order, SampleFeed

ALIGNMENT = 64
VALUES = (type(None), bool, int, float, str)


def open_fetcher(arguments: Mapping[str, Any], payload: tuple[Any, Callable[[list[Any]], Any]]) -> Fetcher:
    """The entry of a worker that reads samples: {"memory": its descriptor}, and (dataset, collate)."""
    torch.set_num_threads(1)
    return Fetcher(arguments["memory"], *payload)


class Fetcher:
    """Reads batches of one dataset."""

    def __init__(self, memory: int, data: Any, collate: Callable[[list[Any]], Any]) -> None:
        self._memory = memory
        self._feed = SampleFeed(Order(len(data), 1), data, collate)
        self._view: mmap.mmap | None = None
        self.opened: dict[str, Any] = {}

    def fetch(self, indices: list[int]) -> dict[str, Any]:
        """Read and collate these samples; where in the memory each tensor lies, and the batch's structure."""
        leaves, spec = pytree.tree_flatten(self._feed.collect(indices))
        nodes, size = [], 0
        for leaf in leaves:
            if torch.is_tensor(leaf):
                held = leaf.numel() * leaf.element_size()
                nodes.append(
                    {"at": size, "bytes": held, "dtype": str(leaf.dtype)[len("torch.") :], "shape": list(leaf.shape)}
                )
                size += -(-held // ALIGNMENT) * ALIGNMENT
            elif isinstance(leaf, VALUES):
                nodes.append({"value": leaf})
            else:
                raise UsageError(f"a batch holds a {type(leaf).__name__}; from worker processes tensors, numbers and "
                                 "texts can come: use threads (by='threads'), or collate it to tensors")  # fmt: skip
        self._lay_out([leaf for leaf in leaves if torch.is_tensor(leaf)], size)
        return {"leaves": nodes, "bytes": size, "structure": pytree.treespec_dumps(spec)}

    def _lay_out(self, tensors: list[torch.Tensor], size: int) -> None:
        if size == 0:
            return
        if self._view is None or len(self._view) < size:
            os.ftruncate(self._memory, size)
            self._view = mmap.mmap(self._memory, size)
        whole, at = torch.frombuffer(self._view, dtype=torch.uint8), 0
        for tensor in tensors:
            flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            whole[at : at + len(flat)] = flat
            at += -(-len(flat) // ALIGNMENT) * ALIGNMENT
