"""Sends batches to a device while it computes: from pinned memory, on a stream of their own."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch.utils import _pytree as pytree


class Transfer:
    """Copies batches from the host to `device`.

    Tensors are copied to pinned memory first, from which the device can copy by itself; then to the device on a stream
    beside the one that computes. `cuda` is the module with Stream, Event, stream and current_stream: torch.cuda unless
    a test gives its own.

    Source: CUDA C++ Best Practices Guide, section 10.1.2, asynchronous and overlapping transfers with computation.
    """

    def __init__(self, device: torch.device, cuda: Any = None) -> None:
        self.device = device
        self._cuda = torch.cuda if cuda is None else cuda
        self._stream = self._cuda.Stream(device)

    def send(self, batch: Any) -> Sent:
        """Begin to copy a batch; from any thread."""
        leaves, spec = pytree.tree_flatten(batch)
        with self._cuda.stream(self._stream):
            copies = [self._copied(leaf) if torch.is_tensor(leaf) else leaf for leaf in leaves]
            done = self._cuda.Event()
            done.record(self._stream)
        return Sent(pytree.tree_unflatten(copies, spec), done, self.device, self._cuda)

    def _copied(self, leaf: torch.Tensor) -> torch.Tensor:
        if leaf.device == self.device:
            return leaf
        return leaf.pin_memory().to(self.device, non_blocking=True)  # pinned memory is kept until the copy is done


@dataclasses.dataclass(frozen=True)
class Sent:
    """A batch on its way."""

    batch: Any
    done: Any
    device: torch.device
    cuda: Any

    def received(self) -> Any:
        """The batch, for the stream that computes now: its next operator waits for the copy, the host does not."""
        stream = self.cuda.current_stream(self.device)
        stream.wait_event(self.done)
        for leaf in pytree.tree_leaves(self.batch):
            if torch.is_tensor(leaf):
                leaf.record_stream(stream)  # or its memory could be given away while this stream uses it
        return self.batch


def device_of(model: torch.nn.Module) -> torch.device:
    """Where a model's parameters are."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device
