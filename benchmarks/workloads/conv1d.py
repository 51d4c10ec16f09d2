"""A temporal convolutional network on series of 784 steps, eight series a call.

Dilated causal convolutions with shortcuts (Bai et al. 2018, arXiv:1803.01271). The series are MNIST digits read pixel
by pixel, the sequence task of Le et al. 2015 (arXiv:1504.00941, section 4.2); the label is the digit.
"""

from __future__ import annotations

from torch import Tensor, nn

import vivace as vv
from prepare import mnist, pairs, trained

BATCH, WIDTH, KERNEL = 8, 64, 7
BUDGET = vv.Budget(drop=0.01)


class Block(nn.Module):
    """Two causal convolutions of one dilation, and a shortcut."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.padding = (KERNEL - 1) * dilation
        self.first = nn.Conv1d(WIDTH, WIDTH, KERNEL, dilation=dilation)
        self.first_norm = nn.BatchNorm1d(WIDTH)
        self.second = nn.Conv1d(WIDTH, WIDTH, KERNEL, dilation=dilation)
        self.second_norm = nn.BatchNorm1d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first_norm(self.first(nn.functional.pad(x, (self.padding, 0)))).relu()
        y = self.second_norm(self.second(nn.functional.pad(y, (self.padding, 0))))
        return (x + y).relu()


def network() -> nn.Module:
    """A stem that takes every fourth step, then dilations that together see the whole series."""
    stem = [nn.Conv1d(1, WIDTH, 8, stride=4, padding=2), nn.BatchNorm1d(WIDTH), nn.ReLU()]
    return nn.Sequential(
        *stem, *(Block(2**i) for i in range(4)), nn.AdaptiveAvgPool1d(7), nn.Flatten(), nn.Linear(7 * WIDTH, 10)
    )


def workload() -> vv.Workload:
    """Trained on 1,200 series, judged on 1,200 others."""
    rows, labels = mnist()
    series, cut = rows[:, None], min(1200, len(rows) // 3)
    model = trained("conv1d", network, series[:cut], labels[:cut], epochs=5)
    held_out = pairs(series[-1200:], labels[-1200:], BATCH)
    return vv.Workload(model, inputs=(held_out[0][0],), data=held_out, metric=vv.metrics.accuracy, name="conv1d")
