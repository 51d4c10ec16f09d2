"""Any call, any answer: keyword arguments in, a dataclass out, and an artifact that needs neither class: \
python examples/structured_outputs.py"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

import vivace as vv


@dataclasses.dataclass
class Detection:
    """What the network answers."""

    boxes: Tensor
    scores: Tensor


class Detector(nn.Module):
    """Two heads over one body, called by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(4))
        self.boxes, self.scores = nn.Linear(256, 20), nn.Linear(256, 5)

    def forward(self, image: Tensor, scale: Tensor) -> Detection:
        """Images [N, 3, H, W] and scales [N, 1] to boxes [N, 20] and scores [N, 5]."""
        features = self.body(image).flatten(1)
        return Detection(self.boxes(features) * scale, self.scores(features).softmax(1))


def main(time: str = "60s") -> None:
    """Optimize by fidelity to the original's outputs, as there are no labels."""
    torch.manual_seed(0)
    call = {"image": torch.rand(8, 3, 64, 64), "scale": torch.ones(8, 1)}
    result = vv.optimize(vv.Workload(Detector().eval(), inputs=call, name="detector"), time=time)
    answer = result.model(**call)
    print(f"{result.verdict.value}: {result.speedup}, {result.plan}")
    print(type(answer).__name__, tuple(answer.boxes.shape), tuple(answer.scores.shape))


if __name__ == "__main__":
    main()
