"""Quantization within a budget, on real digits: int8 only if accuracy holds: python examples/quantized_mlp.py"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn

import vivace as vv

TECHNIQUES = ("onnx-dynamic-int8", "onnx-static-int8", "onnx-runtime", "nncf-static-int8", "openvino")


def trained() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A 64-512-512-10 network, and the digits that it has not seen."""
    digits = load_digits()
    images, labels = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(15):
        for chosen in torch.randperm(700).split(32):
            loss = nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval(), images[700:], labels[700:]


def main(time: str = "90s") -> None:
    """Let float and int8 plans compete at one point of accuracy."""
    model, images, labels = trained()
    pairs = list(zip(images.split(64), labels.split(64), strict=True))
    work = vv.Workload(model, inputs=(images[:64],), data=pairs, metric=vv.metrics.accuracy, name="quantized-mlp")
    result = vv.optimize(work, vv.Budget(drop=0.01), time=time, only=TECHNIQUES)
    for trial in result.candidates:
        print(f"{trial.outcome.value:16} {trial.speedup or ''!s:24} {trial.plan}  {trial.reason}")
    print(f"won: {result.plan}, {result.speedup} times the original, quality {result.quality.verdict.value}")


if __name__ == "__main__":
    main()
