"""Tiny models for the tests of the runtimes, and jobs to convert them in."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vivace.core.cost import Cost
from vivace.core.program import Model
from vivace.core.work import Work


@dataclasses.dataclass
class Scores:
    """A dataclass answer."""

    logits: Tensor
    states: tuple[Tensor, ...]


class Pair(NamedTuple):
    """A named-tuple answer."""

    left: Tensor
    right: Tensor


class Convolution(nn.Module):
    """Convolution, batch normalization and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4 * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.convolution(x))).flatten(1))


class Recurrent(nn.Module):
    """An LSTM with keyword arguments, a constant and a nested answer."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(8, 16, batch_first=True)

    def forward(self, x: Tensor, scale: float = 1.0) -> Scores:
        sequence, states = self.cells(x)
        return Scores(sequence[:, -1] * scale, states)


class Branching(nn.Module):
    """Control flow that depends on values."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x - 1


class Counting(nn.Module):
    """A buffer that changes with every call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + self.calls


class Overwriting(nn.Module):
    """Writes into its input."""

    def forward(self, x: Tensor) -> Tensor:
        x[:, 0] = 0
        return x * 2


class Function(nn.Module):
    """Any function as a module."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def mlp() -> nn.Module:
    """784-128-10."""
    return nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10)).eval()


def work(model: Model, folder: Path) -> Work:
    """A job around a model."""
    return Work("tiny", model.signature, frozenset(), Cost(1, 1, 1, 1), folder)
