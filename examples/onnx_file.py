"""A network from an .onnx file, made faster and called like the original: python examples/onnx_file.py"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn

import vivace as vv


def main(time: str = "60s") -> None:
    """Write a small network as ONNX, optimize the file, load what came of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network = nn.Sequential(
            nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
        ).eval()
        example = torch.randn(32, 64)
        program = torch.onnx.export(network, (example,), dynamo=True, verbose=False)
        assert program is not None
        program.save(str(folder / "network.onnx"))
        result = vv.optimize(vv.Workload(folder / "network.onnx", inputs=(example,)), time=time, out=folder / "fast")
        print(f"{result.verdict.value}: {result.speedup} times ONNX Runtime's default, by {result.plan}")
        print(f"quality {result.quality.verdict.value}: {result.quality.basis}")
        print("answers:", vv.load(folder / "fast")(example).shape)


if __name__ == "__main__":
    main()
