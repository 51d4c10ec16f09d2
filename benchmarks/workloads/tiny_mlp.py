"""The classic 784-128-10 network on MNIST, one image a call: little but overhead."""

from __future__ import annotations

import vivace as vv
from prepare import mnist, pairs
from workloads import mnist_mlp

BUDGET = vv.Budget(drop=0.01)


def workload() -> vv.Workload:
    """The network of mnist_mlp, judged on the last 1,000 images; none was trained on."""
    images, labels = mnist()
    held_out = pairs(images[-1000:], labels[-1000:], 1)
    model = mnist_mlp.classifier()
    return vv.Workload(model, inputs=(held_out[0][0],), data=held_out, metric=vv.metrics.accuracy, name="tiny-mlp")
