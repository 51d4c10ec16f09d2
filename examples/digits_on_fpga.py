"""A network on an FPGA: Verilog that is proved bit for bit, placed and routed: python examples/digits_on_fpga.py"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

import vivace as vv


def workload() -> vv.Workload:
    """A 64-16-10 network, trained on 600 digits and judged on the others."""
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    images = (torch.tensor(digits.data, dtype=torch.float32) / 16)[order]
    labels = torch.tensor(digits.target)[order]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(40):
        for chosen in torch.randperm(600).split(32):
            loss = nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    pairs = list(zip(images[600:].split(64), labels[600:].split(64), strict=True))
    return vv.Workload(model.eval(), inputs=(images[:64],), data=pairs, metric=vv.metrics.accuracy, name="digits-mlp")


def main(time: str = "90s") -> None:
    """Synthesize for the smallest ECP5, and say what came out."""
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        print("a C++ compiler is needed to prove the design; there is none on PATH")
        return
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rtl"
        result = vv.synthesize(workload(), chip="ecp5-25k", out=out, time=time, seeds=1)
        print(f"{result.status.value}: {result.proof.vectors} vectors proved, {result.latency_cycles} cycles a digit")
        print(
            f"{result.resources.tables} tables, {result.resources.multipliers} multipliers, {result.megahertz:.1f} MHz"
        )
        print(f"{result.latency_seconds * 1e6:.2f} us a digit, SIMULATED; accuracy {result.quality.candidate:.3f}")
        print("files:", ", ".join(sorted(path.name for path in out.iterdir())[:6]), "...")


if __name__ == "__main__":
    main()
