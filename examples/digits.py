"""A small convolutional network on real handwritten digits, trained in seconds: try `vivace optimize` on it.

vivace optimize examples/digits.py:workload --time 2m --out fast
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import vivace as vv

BATCH = 16


def network() -> nn.Module:
    """Three convolutions with batch normalization."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def train(images: Tensor, labels: Tensor, epochs: int = 12) -> nn.Module:
    """A network trained on these images, the same one each time."""
    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(32):
            loss = nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def workload() -> vv.Workload:
    """Trained on 600 digits; the other 1,197 say what a plan may lose."""
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    images = (torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16)[order]
    labels = torch.tensor(digits.target)[order]
    pairs = list(zip(images[600:].split(BATCH), labels[600:].split(BATCH), strict=True))
    model = train(images[:600], labels[:600])
    return vv.Workload(model, inputs=(pairs[0][0],), data=pairs, metric=vv.metrics.accuracy, name="digits-cnn")
