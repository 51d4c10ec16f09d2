"""A network for a TPU that is not there, as Google's own compiler sees it: python examples/network_on_a_tpu.py"""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

import torch
from torch import nn

import vivace as vv


def workload() -> vv.Workload:
    """A small convolutional network for 32 x 32 images, 64 at a time."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    return vv.Workload(model.eval(), inputs=(torch.rand(64, 3, 32, 32),), name="cnn")


def main(_time: str = "") -> None:
    """Compile for a TPU v5e and say what the compiler said; then run the same artifact here. That takes half a minute,
    whatever time is asked for."""
    if importlib.util.find_spec("jax") is None:
        print("JAX is needed: pip install 'vivace[tpu]'")
        return
    with tempfile.TemporaryDirectory() as folder:
        result = vv.synthesize(workload(), chip="tpu-v5e", out=Path(folder) / "tpu", time="4m")
        print(f"{result.status.value}; differs from PyTorch by {result.relative_error:.1e} on XLA's CPU, MEASURED")
        if result.bfloat16 is not None:
            told = f"{result.bfloat16.error:.1e} off float64, PyTorch {result.bfloat16.own_error:.1e}, MEASURED"
            print(f"in bfloat16 XLA's CPU is {told}")
        for one in result.estimates:
            print(
                f"{one.products} products: {one.seconds * 1e6:.1f} us a call, {one.held_bytes / 1e6:.1f} MB, PREDICTED"
            )
        for note in result.notes:
            print("note:", note)
        print("here:", vv.load(Path(folder) / "tpu")(torch.rand(3, 3, 32, 32)).shape)


if __name__ == "__main__":
    main()
