"""torch.compile(mode="max-autotune") with freezing, which PyTorch's tutorial for CPUs says that it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from peers.torch_compile import frozen


def open_peer(arguments: Mapping[str, Any], payload: nn.Module) -> Callable[..., Any]:
    return frozen(payload.eval(), mode="max-autotune")
