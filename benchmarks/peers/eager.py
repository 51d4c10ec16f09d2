"""PyTorch as given: the baseline of every comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn


def open_peer(arguments: Mapping[str, Any], payload: nn.Module) -> Callable[..., Any]:
    return payload.eval()
