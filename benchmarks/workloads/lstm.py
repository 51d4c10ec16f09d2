"""A two-layer LSTM that predicts each next character of a text: width 256, four windows of 64 characters a call."""

from __future__ import annotations

from torch import Tensor, nn

import vivace as vv
from prepare import LETTERS, pairs, text, trained
from workloads.transformer import LENGTH, next_character

BUDGET = vv.Budget(drop=0.01)


class Recurrent(nn.Module):
    """Embedding, LSTM, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.symbols = nn.Embedding(LETTERS, 128)
        self.cells = nn.LSTM(128, 256, num_layers=2, batch_first=True)
        self.head = nn.Linear(256, LETTERS)

    def forward(self, codes: Tensor) -> Tensor:
        states, _ = self.cells(self.symbols(codes))
        return self.head(states)


def workload() -> vv.Workload:
    """Trained on 3,000 windows, judged on 1,200 others."""
    codes, following = text(LENGTH)
    model = trained("lstm", Recurrent, codes[:3000], following[:3000], epochs=3, rate=4e-3)
    held_out = pairs(codes[3000:4200], following[3000:4200], 4)
    return vv.Workload(model, inputs=(held_out[0][0],), data=held_out, metric=next_character, name="lstm")
