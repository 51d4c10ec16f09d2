"""What the work here would take elsewhere: run this file, or `vivace predict examples/predict_elsewhere.py:work`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import vivace as vv
from vivace.core.prediction.answer import Line
from vivace.devices.scaling import Law, fitted_serial

SAMPLES = 4096


def network() -> nn.Module:
    """The classic 784-128-10 network for MNIST."""
    return nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def loss(model: nn.Module, batch: Any) -> torch.Tensor:
    """The cross entropy of a batch."""
    images, labels = batch
    return nn.functional.cross_entropy(model(images), labels)


def adam(parameters: Any) -> torch.optim.Optimizer:
    """Adam as the tutorials use it."""
    return torch.optim.Adam(parameters, lr=1e-3)


images, labels = torch.zeros(SAMPLES, 784), torch.zeros(SAMPLES, dtype=torch.long)
work = vv.Workload(network(), inputs=(images[:256],), name="mnist-call")
job = vv.Training(
    model=network, loss=loss, optimizer=adam, data=torch.utils.data.TensorDataset(images, labels), batch_size=2048,
    name="mnist-update",
)  # fmt: skip
gpt = vv.Transformer(layers=24, width=2048, heads=16, sequence=1024, vocabulary=51200, name="gpt-1.3b")


def told(line: Line) -> str:
    """One line of a prediction in words."""
    if line.seconds is None:
        return f"{line.count} x {line.device}: refused: {line.refusal}"
    milliseconds = [bound * 1e3 for bound in (line.seconds.value, line.seconds.low, line.seconds.high)]
    value, low, high = milliseconds
    return f"{line.count} x {line.device}: {value:.3g} ms [{low:.3g}, {high:.3g}], bound by {line.bound}; {line.label}"


def main(time: str = "") -> None:
    """Predict a call, an update and a transformer's layouts. Nothing is timed, so that it takes what it takes."""
    for found in (
        vv.predict(work, on=["h100-sxm", "t4", "tpu-v5e"]),
        vv.predict(job, on=["h100-sxm", "a100-sxm-80"], count=[1, 8]),
        vv.predict(gpt, on="a100-sxm-40", count=8, batch=32, layouts=True),
    ):
        print(found.work.name)
        for line in found.lines:
            print(" ", told(line))
        for layouts in found.layouts:
            for one in layouts.best:
                print(f"  {one.layout}: {one.seconds.value * 1e3:.3g} ms; {one.reason or 'the best'}")
    arrays = vv.predict(work, on=["asic:16x16", "asic:64x64:os"], bandwidths=[4e9, 16e9])
    for chip in arrays.chips:
        waits = ", ".join(chip.memory_bound) or "none"
        cost = f"{chip.seconds * 1e6:.1f} us, {chip.energy.value * 1e6:.0f} uJ, {chip.gates:,.0f} gates"
        print(f"{chip.chip} at {chip.bandwidth / 1e9:g} GB/s: {cost}, layers that wait for memory: {waits}; PREDICTED")
    serial = fitted_serial(Law.AMDAHL, {2: 1.9, 4: 3.5, 8: 6.0})
    print(f"speed-ups of 1.9, 3.5 and 6.0 on 2, 4 and 8 workers imply a serial part of {serial} by Amdahl's law")


if __name__ == "__main__":
    main()
