"""torchao: quantize_ with Int8DynamicActivationInt8WeightConfig, then torch.compile as its documentation goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from peers.torch_compile import frozen

NEEDS = ("torchao",)


def open_peer(arguments: Mapping[str, Any], payload: nn.Module) -> Callable[..., Any]:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    model = payload.eval()
    quantize_(model, Int8DynamicActivationInt8WeightConfig())
    return frozen(model)
