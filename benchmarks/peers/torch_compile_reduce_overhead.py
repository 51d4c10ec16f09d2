"""torch.compile(mode="reduce-overhead"), which captures CUDA graphs; answers are copied out of their memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def open_peer(arguments: Mapping[str, Any], payload: nn.Module) -> Callable[..., Any]:
    compiled = torch.compile(payload.eval(), mode="reduce-overhead")

    @torch.inference_mode()
    def run(*inputs: Tensor) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        return compiled(*inputs).clone()

    return run
