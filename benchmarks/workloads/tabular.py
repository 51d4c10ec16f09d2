"""A residual network for tables (Gorishniy et al. 2021, arXiv:2106.11959, section 3.2), 32 rows a call.

The table is scikit-learn's copy of "Optical recognition of handwritten digits" (UCI, 1998) as UCI publishes it: 1,797
rows of 64 counts of inked pixels, whose places the network does not know. The other real tables that scikit-learn ships
have 569 rows or fewer, too few to certify one point.
"""

from __future__ import annotations

from torch import Tensor, nn

import vivace as vv
from prepare import digits, pairs, trained

BATCH, WIDTH, BLOCKS = 32, 256, 4
BUDGET = vv.Budget(drop=0.01)


class Block(nn.Module):
    """Normalize, widen, narrow, add."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.ReLU(), nn.Dropout(0.1), nn.Linear(2 * WIDTH, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def network() -> nn.Module:
    blocks = [Block() for _ in range(BLOCKS)]
    return nn.Sequential(nn.Linear(64, WIDTH), *blocks, nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10))


def workload() -> vv.Workload:
    """Trained on 600 rows, judged on the others."""
    images, labels = digits()
    rows = images.flatten(1)
    model = trained("tabular", network, rows[:600], labels[:600], epochs=20)
    held_out = pairs(rows[600:], labels[600:], BATCH)
    return vv.Workload(model, inputs=(held_out[0][0],), data=held_out, metric=vv.metrics.accuracy, name="tabular")
