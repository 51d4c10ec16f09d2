"""A training on real handwritten digits: `vivace train examples/train_digits.py:job`, or run this file."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn

import vivace as vv

TRAINED = 1500


class Digits(torch.utils.data.Dataset[Any]):
    """The 8 x 8 images that scikit-learn ships, one by one, as a tutorial reads them."""

    def __init__(self) -> None:
        digits = load_digits()
        self.images = digits.images.astype("float32") / 16
        self.labels = digits.target

    def __len__(self) -> int:
        return TRAINED

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(self.images[index]).flatten(), int(self.labels[index])


DATA = Digits()


def network() -> nn.Module:
    """A perceptron with one hidden layer."""
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def loss(model: nn.Module, batch: Any) -> torch.Tensor:
    """The cross entropy of a batch."""
    images, labels = batch
    return nn.functional.cross_entropy(model(images), labels)


def adam(parameters: Any) -> torch.optim.Optimizer:
    """Adam as the tutorials use it."""
    return torch.optim.Adam(parameters, lr=3e-3)


def evaluate(model: nn.Module) -> float:
    """The accuracy on the images that were not trained on."""
    images = torch.from_numpy(DATA.images[TRAINED:]).flatten(1)
    labels = torch.from_numpy(DATA.labels[TRAINED:])
    with torch.no_grad():
        return float((model(images).argmax(1) == labels).double().mean())


job = vv.Training(
    model=network, loss=loss, optimizer=adam, data=DATA, batch_size=64, evaluate=evaluate, epochs=30, name="digits-mlp"
)


def main(time: str = "1m") -> None:
    """Train, and say what was won."""
    run = vv.train(job, until=0.95, time=time)
    print(f"{run.plan}: {run.speedup}, parity {run.parity and run.parity.verdict.value}, scores {run.scores[-3:]}")


if __name__ == "__main__":
    main()
