"""Operator fusion: what two compilers fuse in a network, and what that gains: python examples/fused_operators.py"""

from __future__ import annotations

import torch
from torch import nn

import vivace as vv

TECHNIQUES = ("fold-conv-batchnorm", "inductor", "onnx-runtime", "openvino")


def network() -> nn.Module:
    """Two convolutions, each with batch normalization and an activation."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    ).eval()  # fmt: skip


def main(time: str = "3m") -> None:
    """Only plans that fuse compete. With three minutes or more, what fusing gained is measured by leaving it out."""
    work = vv.Workload(network(), inputs=(torch.randn(4, 3, 32, 32),), name="fused")
    result = vv.optimize(work, time=time, only=TECHNIQUES)
    for trial in result.candidates:
        print(f"{trial.outcome.value:12} {trial.speedup or ''!s:24} {trial.plan}")
    print(f"won: {result.plan}, {result.speedup} times the original")
    for group in result.fused.groups if result.fused is not None else ():
        print(f"fused into one {group.operator}: {group}")


if __name__ == "__main__":
    main()
