"""Calls through buffers that stay with an engine: nothing is made on the way in, and answers are copied on the way out.

An engine's Python binding makes a tensor, looks a name up and builds a dictionary for each input and output of each
call. That took 28 of 43 us in OpenVINO and 3 of 14 us in ONNX Runtime, beside the same small product.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vivace.runtimes.settings.around import Run

COPIED_BYTES = 1 << 16
"""Inputs of a call that together take no more are copied, and answers; copying what is larger takes longer than binding
it."""
Feed = Callable[[Sequence[Tensor]], object]
"""Puts the flat tensors of a call where the engine finds them; what it returns is kept until the engine has read it."""


def making_buffers() -> torch.inference_mode:
    """To make buffers in: nobody may write to those made in inference mode once the caller has left it."""
    return torch.inference_mode(False)


def copies(inputs: Sequence[tuple[int, Tensor]]) -> Feed:
    """A feed that copies each numbered flat tensor into its buffer, which has its shape and dtype."""

    def feed(leaves: Sequence[Tensor]) -> None:
        for i, buffer in inputs:
            leaf = leaves[i]
            buffer.copy_(leaf.detach() if leaf.requires_grad else leaf)

    return feed


def held(feed: Feed, run: Callable[[], object], outputs: Sequence[tuple[Tensor, torch.dtype]]) -> Run:
    """A run that feeds, computes, and copies the answers out of their buffers, in the dtypes that were promised. Of
    calls from several threads one waits for the other, for there is one set of buffers.

    >>> x, y = torch.zeros(2), torch.zeros(2)
    >>> double = held(copies([(0, x)]), lambda: torch.mul(x, 2, out=y), [(y, torch.float32)])
    >>> double([torch.tensor([1.0, 2.0])])
    [tensor([2., 4.])]
    """

    one_at_a_time = threading.Lock()

    def call(leaves: Sequence[Tensor]) -> list[Tensor]:
        with one_at_a_time:
            read = feed(leaves)
            run()
            del read
            return [buffer.to(dtype, copy=True) for buffer, dtype in outputs]

    return call


def size_of(tensors: Sequence[Tensor]) -> int:
    """Bytes of some tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
