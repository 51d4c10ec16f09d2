"""torch.compile with freezing under bfloat16 autocast; answers are given back as float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from peers.torch_compile import frozen


def open_peer(arguments: Mapping[str, Any], payload: nn.Module) -> Callable[..., Any]:
    compiled, kind = frozen(payload.eval()), arguments.get("device", "cpu")

    def run(*inputs: Tensor) -> Tensor:
        with torch.autocast(kind, torch.bfloat16):
            return compiled(*inputs).float()

    return run
