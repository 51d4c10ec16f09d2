"""A pruned network on a systolic array that skips its zeros, proved bit for bit: python examples/digits_on_asic.py"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import vivace as vv


def two_of_four(weight: Tensor) -> Tensor:
    """1 for the two largest of every four weights along the inputs, 0 for the others."""
    groups = weight.detach().abs().reshape(-1, 4)
    kept = torch.zeros_like(groups).scatter(1, groups.topk(2).indices, 1.0)
    return kept.reshape(weight.shape)


def workload() -> vv.Workload:
    """A 64-32-10 network, trained on 600 digits, pruned to 2:4, trained on, and judged on the other digits."""
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    images = (torch.tensor(digits.data, dtype=torch.float32) / 16)[order]
    labels = torch.tensor(digits.target)[order]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    masks: list[tuple[Tensor, Tensor]] = []
    for epoch in range(60):
        if epoch == 30:
            masks = [(layer.weight, two_of_four(layer.weight)) for layer in model if isinstance(layer, nn.Linear)]
        for chosen in torch.randperm(600).split(32):
            with torch.no_grad():
                for weight, mask in masks:
                    weight *= mask
            loss = nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        for weight, mask in masks:
            weight *= mask
    pairs = list(zip(images[600:].split(64), labels[600:].split(64), strict=True))
    return vv.Workload(model.eval(), inputs=(images[:64],), data=pairs, metric=vv.metrics.accuracy, name="digits-2of4")


def main(time: str = "90s") -> None:
    """Put it on a sparse array of 8 x 8 elements, and say what came out."""
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        print("a C++ compiler is needed to prove the array; there is none on PATH")
        return
    with tempfile.TemporaryDirectory() as folder:
        result = vv.synthesize(workload(), chip="asic:8x8:ws:2of4", out=Path(folder) / "rtl", time=time, batch=16)
    print(f"{result.proof.sums} sums proved on {result.proof.chip}, SIMULATED; accuracy {result.quality.candidate:.3f}")
    for row in result.layers:
        kind = "2:4" if row.sparse else "dense"
        print(f"layer {row.layer}, {kind}: {row.cycles:.0f} cycles for 16 digits, array used {row.utilization:.0%}")
    print(f"{result.latency_seconds * 1e6:.2f} us and {result.energy.value * 1e6:.2f} uJ for 16 digits, PREDICTED")
    best = min((point for point in result.sweep if point.front), key=lambda point: point.seconds)
    print(f"the fastest array compared: {best.chip}, {best.seconds * 1e6:.2f} us at {best.bandwidth / 1e9:g} GB/s")


if __name__ == "__main__":
    main()
