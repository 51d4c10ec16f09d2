"""A model that becomes another one by a plain attribute, which an evaluation sets."""

from __future__ import annotations

import torch
from torch import nn


class Phased(nn.Sequential):
    """From its second phase on only the last layer learns. It counts its calls."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 4))
        self.phase = self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        hidden = self[1](self[0](x))
        return self[2](hidden if self.phase < 2 else hidden.detach())


def in_the_next_phase(model: nn.Module) -> float:
    model.phase += 1  # type: ignore[operator]
    return 0.0
