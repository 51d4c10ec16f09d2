"""Intel Neural Compressor 3: StaticQuantConfig on the exported model, calibrated, converted, then torch.compile.

As its page "PyTorch Static Quantization", section "Usage Sample with PT2E", shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from peers import torchao_static_int8

NEEDS = ("neural_compressor",)


def prepare(model: nn.Module, calls: Sequence[tuple[Tensor, ...]], folder: Path) -> dict[str, str]:
    from neural_compressor.torch.export import export
    from neural_compressor.torch.quantization import StaticQuantConfig, convert, prepare

    exported = export(model.eval(), example_inputs=calls[0])
    observed = prepare(exported, quant_config=StaticQuantConfig())
    with torch.no_grad():
        for call in calls:
            observed(*call)
        return torchao_static_int8.stored(convert(observed), calls, folder)


def open_peer(arguments: Mapping[str, Any], payload: nn.Module) -> Callable[..., Any]:
    return torchao_static_int8.open_peer(arguments, payload)
