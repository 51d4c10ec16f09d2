"""torch.compile with its defaults, under torch.inference_mode()."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn


def open_peer(arguments: Mapping[str, Any], payload: nn.Module) -> Callable[..., Any]:
    return torch.inference_mode()(torch.compile(payload.eval()))


def frozen(model: nn.Module, **options: Any) -> Callable[..., Any]:
    """Compiled with weights as constants, which PyTorch does where no gradient is asked for."""
    import torch._inductor.config

    torch._inductor.config.freezing = True
    return torch.no_grad()(torch.compile(model, **options))
