"""ResNet-18 (He et al. 2016, arXiv:1512.03385, table 1) on digits scaled up to 3 x 64 x 64, one image a call."""

from __future__ import annotations

import itertools

from torch import Tensor, nn

import vivace as vv
from prepare import large_digits, pairs, trained

BUDGET = vv.Budget(drop=0.01)


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first_norm(self.first(x)).relu()
        return (self.second_norm(self.second(y)) + self.shortcut(x)).relu()


def network() -> nn.Module:
    widths = (64, 64, 128, 256, 512)
    blocks = [
        Block(before if i == 0 else after, after, stride=2 if i == 0 and after > 64 else 1)
        for before, after in itertools.pairwise(widths)
        for i in range(2)
    ]
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def workload() -> vv.Workload:
    """Trained on the first images, judged on the others."""
    images, labels, cut = large_digits(64)
    model = trained("resnet18", network, images[:cut], labels[:cut], epochs=2, rate=1e-3)
    held_out = pairs(images[cut:], labels[cut:], 1)
    return vv.Workload(model, inputs=(held_out[0][0],), data=held_out, metric=vv.metrics.accuracy, name="resnet18")
