"""torch.compile with torch._inductor.config.freezing, under torch.no_grad()."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from peers.torch_compile import frozen


def open_peer(arguments: Mapping[str, Any], payload: nn.Module) -> Callable[..., Any]:
    return frozen(payload.eval())
