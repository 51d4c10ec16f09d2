"""A loss that becomes another one by something beside the model: what an evaluation counts."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vivace.testing import tiny_training

SEEN = {"evaluations": 0}
PLAIN_EPOCHS = 2


def loss(model: nn.Module, batch: Any) -> torch.Tensor:
    """From the third epoch on weights cost something."""
    plain = tiny_training.loss(model, batch)
    if SEEN["evaluations"] < PLAIN_EPOCHS:
        return plain
    return plain + 0.1 * sum(value.square().sum() for value in model.parameters())


def counted(model: nn.Module) -> float:
    SEEN["evaluations"] += 1
    return 0.0
