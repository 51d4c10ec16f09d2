"""Losses that explode late: by a sample, or by a gradient that is infinite where the loss is not."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vivace.testing import tiny_training


def late(model: nn.Module, batch: Any) -> torch.Tensor:
    """NaN from step 201 on, in the 29th epoch of 7 steps, by what the model has counted in a buffer."""
    model.steps.add_(1.0)  # type: ignore[operator, union-attr]
    found = tiny_training.loss(model, batch)
    return found * float("nan") if float(model.steps) > 200 else found  # type: ignore[arg-type]


def counted() -> nn.Module:
    model = tiny_training.perceptron()
    model.register_buffer("steps", torch.zeros(()))
    return model


def rooted(model: nn.Module, batch: Any) -> torch.Tensor:
    """From the 14th step on the square root of zero, which is finite, and whose gradient is not."""
    model.steps.add_(1.0)  # type: ignore[operator, union-attr]
    found = tiny_training.loss(model, batch)
    return found + (found * 0.0).sqrt() if float(model.steps) > 13 else found  # type: ignore[arg-type]
