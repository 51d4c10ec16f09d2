"""The trainings that several processes are timed with: chains to calibrate on, and three networks to be predicted."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from vivace.core.training.job import Training

CLASSES = 10
SAMPLES = 4096


@dataclasses.dataclass(frozen=True)
class Case:
    """A network with its batch and the shape of a sample. `is_target` says that it is predicted and never fitted."""

    name: str
    model: Callable[[], nn.Module]
    batch: int
    shape: tuple[int, ...]
    is_target: bool = False

    def job(self) -> Training:
        """The training."""
        return Training(
            model=self.model, loss=loss, optimizer=adam, data=Numbers(self.shape), batch_size=self.batch,
            epochs=10**6, name=self.name,
        )  # fmt: skip


class Numbers(torch.utils.data.Dataset[Any]):
    """Samples of random numbers, the same ones each time."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        generator = torch.Generator().manual_seed(7)
        self.numbers = torch.randn((256, *shape), generator=generator)
        self.labels = torch.randint(CLASSES, (256,), generator=generator)

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Any:
        return self.numbers[index % 256], self.labels[index % 256]


def loss(model: nn.Module, batch: Any) -> torch.Tensor:
    """The cross entropy of a batch."""
    x, labels = batch
    return functional.cross_entropy(model(x), labels)


def adam(parameters: Any) -> torch.optim.Optimizer:
    """Adam."""
    return torch.optim.Adam(parameters, 1e-3)


class Pair(nn.Module):
    """A linear pair with a way around it."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(functional.relu(self.up(x)))


class Attending(nn.Module):
    """A transformer's block without dropout."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        q, k, v = self.mixed(self.first(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = x + self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))
        return x + self.down(functional.gelu(self.up(self.second(x))))


class Mean(nn.Module):
    """The mean over the positions."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(1)


def chain(pairs: int, width: int, inner: int, given: int = 64) -> nn.Module:
    """Pairs that follow one another, between a first and a last layer."""
    blocks = (Pair(width, inner) for _ in range(pairs))
    return nn.Sequential(nn.Linear(given, width), *blocks, nn.Linear(width, CLASSES))


def perceptron() -> nn.Module:
    """Wide linear layers, alternately squeezed."""
    sizes = (784, 1024, 512, 1024, 512)
    layers = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(512, CLASSES))


def transformer() -> nn.Module:
    """Three blocks of width 128."""
    return nn.Sequential(nn.Linear(32, 128), *(Attending(128, 4) for _ in range(3)), Mean(), nn.Linear(128, CLASSES))


def convolutional() -> nn.Module:
    """Three convolutions and a head of two linear layers."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 64, 256), nn.ReLU(),
        nn.Linear(256, CLASSES),
    )  # fmt: skip


CHAINS = (
    Case("chain-2x32", functools.partial(chain, 2, 32, 32), 32, (64,)),
    Case("chain-8x32", functools.partial(chain, 8, 32, 64), 32, (64,)),
    Case("chain-2x512", functools.partial(chain, 2, 512, 1024), 64, (64,)),
    Case("chain-4x256", functools.partial(chain, 4, 256, 512), 256, (64,)),
    Case("chain-6x256", functools.partial(chain, 6, 256, 256), 512, (64,)),
)
TARGETS = (
    Case("perceptron", perceptron, 128, (784,), is_target=True),
    Case("transformer", transformer, 16, (48, 32), is_target=True),
    Case("convolutional", convolutional, 32, (3, 32, 32), is_target=True),
)
CASES = (*CHAINS, *TARGETS)
