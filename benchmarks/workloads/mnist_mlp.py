"""The classic 784-128-10 network on MNIST, 64 images a call."""

from __future__ import annotations

from torch import nn

import vivace as vv
from prepare import mnist, pairs, trained

BATCH = 64
BUDGET = vv.Budget(drop=0.01)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def classifier() -> nn.Module:
    """Trained on the first 40% of the images."""
    images, labels = mnist()
    cut = len(images) * 2 // 5
    return trained("mnist-mlp", network, images[:cut], labels[:cut], epochs=8)


def workload() -> vv.Workload:
    """Trained on 40% of the images, judged on the others."""
    images, labels = mnist()
    cut = len(images) * 2 // 5
    held_out = pairs(images[cut:], labels[cut:], BATCH)
    model = classifier()
    return vv.Workload(model, inputs=(held_out[0][0],), data=held_out, metric=vv.metrics.accuracy, name="mnist-mlp")
