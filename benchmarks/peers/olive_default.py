"""Olive: `olive optimize` on the exported ONNX model, for a CPU, as its README begins; run by ONNX Runtime.

Its int8 is not asked for here: for an ONNX model that path calibrates on a text data set that it downloads.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from peers.onnxruntime_default import exported, open_peer

NEEDS = ("olive",)
QUIET = {"OLIVE_DISABLE_TELEMETRY": "1"}

__all__ = ["NEEDS", "open_peer", "prepare"]


def prepare(model: nn.Module, calls: Sequence[tuple[Tensor, ...]], folder: Path) -> dict[str, str]:
    source, made = exported(model, calls, folder), folder / "optimized"
    options = ["--device", "cpu", "--provider", "CPUExecutionProvider", "--output_path", str(made)]
    command = [sys.executable, "-m", "olive", "optimize", "--model_name_or_path", str(source), *options]
    done = subprocess.run(command, cwd=folder, env={**os.environ, **QUIET}, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"olive optimize ended with {done.returncode}: {done.stderr[-300:]}")
    return {"file": str(only_model(made))}


def only_model(folder: Path) -> Path:
    """The ONNX file that Olive left."""
    found = sorted(folder.rglob("*.onnx"))
    if len(found) != 1:
        raise FileNotFoundError(f"Olive left {len(found)} ONNX files in {folder}; one was expected")
    return found[0]
