"""Memory of a training step: what activations take, and what recomputing saves: python examples/memory_of_a_step.py"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import vivace as vv


def network() -> nn.Module:
    """Sixteen layers whose answers the backward pass needs."""
    return nn.Sequential(*(nn.Sequential(nn.Linear(256, 256), nn.GELU()) for _ in range(16)), nn.Linear(256, 10))


def loss(model: nn.Module, batch: Any) -> torch.Tensor:
    """The cross entropy of a batch."""
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def adam(parameters: Any) -> torch.optim.Optimizer:
    """Adam, which keeps two numbers for each weight."""
    return torch.optim.Adam(parameters)


torch.manual_seed(0)
POINTS = torch.randn(512, 256), torch.randint(0, 10, (512,))
job = vv.Training(model=network, loss=loss, optimizer=adam, data=torch.utils.data.TensorDataset(*POINTS),
                  batch_size=256, epochs=1, name="memory")  # fmt: skip


def main(time: str = "") -> None:
    """Bytes by kind in a step as given, then what checkpointing leaves of the activations, proved to train the same."""
    run = vv.train(job, plan=["activation-checkpointing"])
    kinds = ("parameter", "gradient", "optimizer", "activation")
    print("; ".join(f"{kind} {getattr(run.diagnosis, f'{kind}_bytes') / 1e6:.1f} MB" for kind in kinds))
    if run.diagnosis_after is not None and run.parity is not None:
        left = run.diagnosis_after.activation_bytes / 1e6
        print(f"with {run.plan}: activations {left:.1f} MB; the same training? {run.parity.verdict.value}")


if __name__ == "__main__":
    main()
