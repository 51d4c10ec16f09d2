"""torchao: PyTorch 2 Export quantization for x86 (X86InductorQuantizer), then torch.compile with freezing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from peers.torch_compile import frozen

NEEDS = ("torchao",)


def prepare(model: nn.Module, calls: Sequence[tuple[Tensor, ...]], folder: Path) -> dict[str, str]:
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    with torch.no_grad():
        observed = prepare_pt2e(torch.export.export(model.eval(), calls[0]).module(), quantizer)
        for call in calls:
            observed(*call)
        return stored(convert_pt2e(observed), calls, folder)


def stored(quantized: nn.Module, calls: Sequence[tuple[Tensor, ...]], folder: Path) -> dict[str, str]:
    file = folder / "quantized.pt2"
    torch.export.save(torch.export.export(quantized, calls[0]), file)
    return {"file": str(file)}


def open_peer(arguments: Mapping[str, Any], payload: nn.Module) -> Callable[..., Any]:
    import torchao.quantization.pt2e.quantize_pt2e  # noqa: F401  registers the operators and how they are lowered

    return frozen(torch.export.load(arguments["file"]).module())
