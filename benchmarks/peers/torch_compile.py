"""torch.compile with its defaults, under torch.inference_mode()."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

NAME = "torch.compile"


def open_peer(arguments: Mapping[str, Any], payload: nn.Module) -> Callable[..., Any]:
    return torch.inference_mode()(torch.compile(payload.eval()))
