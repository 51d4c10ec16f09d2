"""The demo's own network on scikit-learn's handwritten digits, 16 images a call."""

from __future__ import annotations

import vivace as vv
from prepare import pairs
from vivace.cli.digits import load_digits, train_network

BATCH = 16
BUDGET = vv.Budget(drop=0.01)


def workload() -> vv.Workload:
    """Trained on 697 digits, judged on the others."""
    training, held_out = load_digits()
    data = pairs(held_out.images, held_out.labels, BATCH)
    model = train_network(training)
    return vv.Workload(model, inputs=(data[0][0],), data=data, metric=vv.metrics.accuracy, name="digits-cnn")
