"""PyTorch under torch.inference_mode(), as its documentation advises for serving."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn


def open_peer(arguments: Mapping[str, Any], payload: nn.Module) -> Callable[..., Any]:
    return torch.inference_mode()(payload.eval().forward)
