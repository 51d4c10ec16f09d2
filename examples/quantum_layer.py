"""A layer of a trained network as quantum computation, and the verdict beside this processor's time: run this file.

vivace quantum examples/quantum_layer.py:workload --out quantum
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn

import vivace as vv


def workload() -> vv.Workload:
    """A 64-32-10 network on real handwritten digits."""
    digits = load_digits()
    images, labels = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(100):
        loss = nn.functional.cross_entropy(model(images[:1000]), labels[:1000])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return vv.Workload(model.eval(), inputs=(images[1000:1008],), name="digits-mlp")


def main(time: str = "") -> None:
    """The hidden layer: circuits agree with it, and it is far slower."""
    found = vv.quantum(workload(), layer="0", shots=2048, outputs=2)
    for run in found.simulations:
        print(
            f"{run.test.value:9} {run.machine or 'ideal':11} {run.circuit.two_qubit:4} two-qubit gates; agrees: "
            f"{run.agrees}"
        )
    print(f"one output from circuits: {found.simulations[0].outputs[0].estimate} (SIMULATED), "
          f"classically {found.simulations[0].outputs[0].exact:.3g}")  # fmt: skip
    assert found.verdict is not None
    print(f"about 10^{found.verdict.power} times slower on {found.verdict.machine} (PREDICTED) than here (MEASURED)")
    for choice in found.choices:
        print(f"{choice.name}: " + ", ".join(f"{one.solver} {one.cost}" for one in choice.answers))


if __name__ == "__main__":
    main()
