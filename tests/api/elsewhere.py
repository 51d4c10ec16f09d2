"""A fresh process that knows an artifact alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

SCRIPT = """
import sys
import vivace as vv
from safetensors.torch import load_file, save_file
model = vv.load("ARTIFACT")
save_file({"y": model(load_file("x.safetensors")["x"])}, "y.safetensors")
assert model.form.value == "xla" and "jax" in sys.modules
"""


def elsewhere(artifact: str, x: torch.Tensor, folder: Path) -> torch.Tensor:
    """What it answers to x by whatever JAX finds; `artifact` lies in `folder`."""
    save_file({"x": x}, folder / "x.safetensors")
    subprocess.run([sys.executable, "-c", SCRIPT.replace("ARTIFACT", artifact)], check=True, cwd=folder, timeout=120)
    return load_file(folder / "y.safetensors")["y"]
