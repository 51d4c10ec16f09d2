"""A trained model's state as one safetensors file: whole or not there; what is no tensor of it in the file's header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vivace.core.documents import strict_json
from vivace.core.errors import ArtifactError
from vivace.devices.disk import let_others_read, whole
from vivace.training.keeping.values import Unwritable, read, written

EXTRA = "extra_state"
"""What in the header holds the states that modules give by `get_extra_state`, by their names in the state dict."""


def write_model(model: nn.Module, file: Path) -> None:
    """Keep a model's state. Of tensors that are one in memory, the first name stays. Extra states that hold anything
    but numbers and texts are left out."""
    tensors, extra, names = dict[str, Tensor](), dict[str, Any](), dict[Any, str]()
    for name, value in model.state_dict().items():
        if torch.is_tensor(value):
            if names.setdefault(_memory(value, name), name) == name:
                tensors[name] = value.detach().to("cpu").contiguous().clone()
            continue
        arrays: dict[str, Tensor] = {}
        try:
            told = written(value, arrays, name)
        except Unwritable:
            continue
        if not arrays:
            extra[name] = told
    with whole(file, sum(one.nbytes for one in tensors.values())) as beside:
        save_file(tensors, beside, metadata={EXTRA: json.dumps(extra)} if extra else None)
        let_others_read(beside)


def load_model(model: nn.Module, file: Path) -> None:
    """Put into a fresh model what `write_model` kept. Raises ArtifactError where the file lacks a tensor of it, or has
    others."""
    tensors: dict[str, Any] = load_file(file)
    with safe_open(str(file), framework="pt") as opened:
        told = (opened.metadata() or {}).get(EXTRA, "{}")
    state = tensors | {name: read(value, {}) for name, value in strict_json.loads(told).items()}
    own = model.state_dict()
    kept = {_memory(value, name) for name, value in own.items() if name in tensors}
    missing, unexpected = model.load_state_dict(state, strict=False)
    lacking = [one for one in missing if torch.is_tensor(own.get(one)) and _memory(own[one], one) not in kept]
    if lacking or unexpected:
        raise ArtifactError(f"{file} does not fit the model: it lacks {lacking} and has {unexpected} beside it")


def _memory(tensor: Tensor, name: str) -> Any:
    """Where a tensor lies and how; its name where it lies nowhere."""
    if not tensor.numel() or tensor.layout is not torch.strided:
        return name
    return tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
