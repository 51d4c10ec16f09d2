"""What Vivace is compared with: each file opens one tool in one setting as its documentation shows, torch tensors in
and out.

A file has `open_peer(arguments, model)`, which returns what is timed. It may have `prepare(model, calls, folder)`,
which converts and calibrates once and returns the arguments for `open_peer`, and NEEDS, the packages that must be
installed.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FAMILIES: Mapping[str, Mapping[str, str]] = {
    "PyTorch": {"inference_mode": "inference mode"},
    "torch.compile": {
        "torch_compile": "default",
        "torch_compile_freezing": "freezing",
        "torch_compile_max_autotune": "max-autotune",
        "torch_compile_bf16": "bf16",
        "torch_compile_reduce_overhead": "reduce-overhead",
    },
    "ONNX Runtime": {
        "onnxruntime_default": "fp32",
        "onnxruntime_dynamic_int8": "dynamic int8",
        "onnxruntime_static_int8": "static int8",
    },
    "OpenVINO": {"openvino_default": "default", "openvino_int8": "int8"},
    "torchao": {"torchao_dynamic_int8": "dynamic int8", "torchao_static_int8": "static int8"},
    "Neural Compressor": {"neural_compressor_int8": "static int8"},
    "Olive": {"olive_default": "fp32", "olive_int8": "static int8"},
}
"""Every tool, its peers by file, and what each setting is called."""

ON_CARD = (*FAMILIES["PyTorch"], *FAMILIES["torch.compile"])
"""Those that run a model that lies on a CUDA device."""
FOR_CARDS = ("torch_compile_reduce_overhead",)
PEERS = tuple(peer for settings in FAMILIES.values() for peer in settings if peer not in FOR_CARDS)


def title(peer: str) -> str:
    """How people call a peer.

    >>> title("torch_compile_bf16")
    'torch.compile (bf16)'
    """
    return next(f"{family} ({settings[peer]})" for family, settings in FAMILIES.items() if peer in settings)


def missing(peer: str) -> list[str]:
    """The packages that a peer needs and that are not installed."""
    needs = getattr(importlib.import_module(f"peers.{peer}"), "NEEDS", ())
    return [package for package in needs if importlib.util.find_spec(package) is None]


def prepare(arguments: Mapping[str, Any], payload: tuple[Any, Any]) -> dict[str, Any]:
    """In a worker: let a peer convert and calibrate once. `payload` is the model and calls for calibration."""
    module = importlib.import_module(f"peers.{arguments['peer']}")
    prepared: dict[str, Any] = module.prepare(*payload, Path(arguments["folder"]))
    return prepared
