"""Olive: a workflow of OnnxPeepholeOptimizer and OnnxStaticQuantization, as its examples for vision models configure.

Run by ONNX Runtime, as the default Olive peer.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from peers.olive_default import NEEDS, QUIET, only_model
from peers.onnxruntime_default import exported, open_peer
from peers.onnxruntime_static_int8 import input_names

__all__ = ["NEEDS", "open_peer", "prepare"]


def prepare(model: nn.Module, calls: Sequence[tuple[Tensor, ...]], folder: Path) -> dict[str, str]:
    os.environ.update(QUIET)
    from olive.data.registry import Registry
    from olive.workflows import run

    source, made = exported(model, calls, folder), folder / "optimized"
    names = input_names(source)

    @Registry.register_dataset("benchmark_calls")
    def benchmark_calls(**_: Any) -> list[tuple[dict[str, Tensor], int]]:
        return [(dict(zip(names, call, strict=True)), 0) for call in calls]

    run(workflow(source, made, folder / "cache"))
    return {"file": str(only_model(made))}


def workflow(source: Path, made: Path, cache: Path) -> dict[str, Any]:
    """Olive's configuration: what `olive run --config` reads."""
    system = {
        "type": "LocalSystem",
        "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
    }
    data = {
        "name": "calibration",
        "type": "DataContainer",
        "load_dataset_config": {"type": "benchmark_calls"},
        "dataloader_config": {"type": "no_auto_batch_dataloader"},
    }
    quantize = {"type": "OnnxStaticQuantization", "data_config": "calibration"}
    return {
        "input_model": {"type": "ONNXModel", "model_path": str(source)},
        "systems": {"local_system": system},
        "host": "local_system",
        "target": "local_system",
        "data_configs": [data],
        "passes": {"optimize": {"type": "OnnxPeepholeOptimizer"}, "quantize": quantize},
        "cache_dir": str(cache),
        "output_dir": str(made),
    }
