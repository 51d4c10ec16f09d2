"""The most memory that tensors take at once while something runs, counted as they come and go."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class Peak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of every piece of memory that an operator inside makes, until it is freed.

    `bytes` is the most at once; what was there before is not in it. The same on every run, unlike a process's size.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self._alive = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given = {id(leaf.untyped_storage()) for leaf in pytree.tree_leaves((args, kwargs)) if _has_storage(leaf)}
        for leaf in pytree.tree_leaves(made):
            if _has_storage(leaf):
                self._count(leaf.untyped_storage(), given)
        return made

    def _count(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        key = id(storage)
        if key in self._known or key in given:
            return
        size = storage.nbytes()
        self._known.add(key)
        self._alive += size
        self.bytes = max(self.bytes, self._alive)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._alive -= size


def peak_bytes(run: Callable[[], Any]) -> int:
    """Bytes that tensors made by `run` take at most at the same time.

    >>> peak_bytes(lambda: (torch.zeros(1000) + 1).sum())
    8004
    """
    with Peak() as counted:
        run()
    return int(counted.bytes)


def _has_storage(leaf: Any) -> bool:
    return torch.is_tensor(leaf) and leaf.layout is torch.strided and type(leaf) in (torch.Tensor, torch.nn.Parameter)
