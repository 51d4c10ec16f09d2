"""A fresh process that knows an artifact alone."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

SCRIPT = """
import sys, warnings
import vivace as vv
from safetensors.torch import load_file, save_file
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    model = vv.load("ARTIFACT")
save_file({"y": model(load_file("x.safetensors")["x"])}, "y.safetensors")
assert model.form.value == "xla" and "jax" in sys.modules
print(model.runs_on)
print(*(one.message for one in warned if one.category.__name__ == "ArtifactWarning"), sep=" | ")
"""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What it answers, where it says that it ran, and what it warned of."""

    y: torch.Tensor
    runs_on: str
    warned: str


def elsewhere(artifact: str, x: torch.Tensor, folder: Path) -> torch.Tensor:
    """What it answers to x by whatever JAX finds; `artifact` lies in `folder`."""
    return answer_elsewhere(artifact, x, folder, os.environ.get("XLA_FLAGS", "")).y


def answer_elsewhere(artifact: str, x: torch.Tensor, folder: Path, flags: str) -> Answer:
    """The same with what else it says, under flags of XLA."""
    save_file({"x": x}, folder / "x.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("ARTIFACT", artifact)], check=True, cwd=folder, timeout=120,
        env={**os.environ, "XLA_FLAGS": flags}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    runs_on, warned = done.stdout.splitlines()[-2:]
    return Answer(load_file(folder / "y.safetensors")["y"], runs_on, warned)
