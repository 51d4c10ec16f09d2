"""Networks that use every engine, as integer graphs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from vivace.hardware.graph.integer import IntegerGraph
from vivace.hardware.graph.quantize import Precision, quantize
from vivace.hardware.graph.reading import read
from vivace.runtimes.capture import capture


class Residual(nn.Module):
    """Every kind of layer: convolution with a stride, depthwise, addition, pools, ReLU6, flatten, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.depthwise = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.ReLU6())
        self.pointwise = nn.Conv2d(4, 4, 1)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.average = nn.AvgPool2d(2)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.pointwise(self.depthwise(x)))
        return self.head(self.average(self.pool(x)).flatten(1))


def _made(module: nn.Module, shape: tuple[int, ...], precision: Precision = Precision()) -> IntegerGraph:
    torch.manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.5, 0.5)
            layer.running_var.uniform_(0.5, 2)
    x = torch.rand(32, *shape) - 0.3
    network = read(capture(module.eval(), (x,)).model.program, "net")
    return quantize(network, [x], precision)


@pytest.fixture(scope="session")
def made() -> Callable[..., IntegerGraph]:
    """(module, shape of a sample, precision) to an integer graph, calibrated on seeded noise."""
    return _made


@pytest.fixture(scope="session")
def mlp() -> IntegerGraph:
    """12-8-5, with inputs of both signs."""
    torch.manual_seed(1)
    return _made(nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 5)), (12,))


@pytest.fixture(scope="session")
def residual() -> IntegerGraph:
    """Every kind of layer, on maps of 2 x 16 x 16."""
    torch.manual_seed(1)
    return _made(Residual(), (2, 16, 16))


@pytest.fixture
def every_kind() -> nn.Module:
    """A network with every kind of layer, for maps of 2 x 16 x 16."""
    torch.manual_seed(1)
    return Residual()


@pytest.fixture(scope="session")
def drawn() -> Callable[[IntegerGraph, int], np.ndarray]:
    """So many samples of integers over the whole range of a graph's input."""

    def draw(graph: IntegerGraph, count: int) -> np.ndarray:
        form = graph.input.format
        return np.random.default_rng(0).integers(form.low, form.high + 1, (count, *graph.input.shape))

    return draw
