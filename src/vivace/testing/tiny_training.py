"""Tiny trainings: a perceptron with dropout on points, and a convolution with batch normalization on small images."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from vivace.core.training.job import Training

CLASSES = 4


class Points(torch.utils.data.Dataset[Any]):
    """`count` points around four centres, the same ones each time."""

    def __init__(self, count: int = 103, shape: tuple[int, ...] = (12,)) -> None:
        generator = torch.Generator().manual_seed(7)
        self.labels = torch.randint(CLASSES, (count,), generator=generator)
        centres = torch.randn((CLASSES, *shape), generator=generator)
        self.points = centres[self.labels] + 0.5 * torch.randn((count, *shape), generator=generator)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.points[index], int(self.labels[index])


def loss(model: nn.Module, batch: Any) -> torch.Tensor:
    """The cross entropy of a batch."""
    points, labels = batch
    return functional.cross_entropy(model(points), labels)


def adam(parameters: Any) -> torch.optim.Optimizer:
    """Adam with a rate that suits these jobs."""
    return torch.optim.Adam(parameters, 1e-2)


def perceptron() -> nn.Module:
    """Two layers with dropout between."""
    return nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, CLASSES))


def convolutional() -> nn.Module:
    """A convolution, batch normalization, and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, CLASSES),
    )  # fmt: skip


def accuracy(data: Points) -> Any:
    """What scores a model on all points."""

    def evaluate(model: nn.Module) -> float:
        with torch.no_grad():
            return float((model(data.points).argmax(1) == data.labels).double().mean())

    return evaluate


def job(**changes: Any) -> Training:
    """A perceptron on points, 7 batches an epoch, the last one smaller."""
    data = Points()
    fields: dict[str, Any] = {
        "model": perceptron, "loss": loss, "optimizer": adam, "data": data, "batch_size": 16,
        "evaluate": accuracy(data), "epochs": 3, "name": "points",
    }  # fmt: skip
    return Training(**{**fields, **changes})


def image_job(**changes: Any) -> Training:
    """A convolution with batch normalization on small images."""
    data = Points(64, (3, 6, 6))
    return job(**{"model": convolutional, "data": data, "evaluate": accuracy(data), **changes})


def momentum(parameters: Any) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum and weight decay."""
    return torch.optim.SGD(parameters, 0.05, momentum=0.9, weight_decay=1e-3)


def shifted(batch: Any) -> Any:
    """An augmentation that draws from the global generator: every image is moved by some pixels."""
    points, labels = batch
    return torch.roll(points, int(torch.randint(1, 5, ())), -1), labels
