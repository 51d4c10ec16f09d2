"""The classic script: MNIST, 784-128-10, Adam at 1e-3, batches of 64. 8,000 images to train on and 2,000 held out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import vivace as vv
from prepare import mnist
from trainings.course import Course

EPOCHS, BATCH = 20, 64
TARGET = 0.95
"""Held-out accuracy; where only scikit-learn's digits are there, theirs."""
HELD_OUT = 0.2
COMPARED_STEPS, TRIED = 400, "3m"


class Images(Dataset[Any]):
    """MNIST as torchvision gives it to the tutorial: one image with its label at a time, as a tensor."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])


def split() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images and labels to train on, and those that are held out."""
    images, labels = mnist()
    cut = int(len(images) * (1 - HELD_OUT))
    return images[:cut], labels[:cut], images[cut:], labels[cut:]


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def loss(model: nn.Module, batch: Any) -> Tensor:
    images, labels = batch
    return nn.functional.cross_entropy(model(images), labels)


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3)


class Accuracy:
    """The share of held-out images that a model names."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __call__(self, model: nn.Module) -> float:
        with torch.no_grad():
            return float((model(self.images).argmax(1) == self.labels).double().mean())


def job(seed: int) -> vv.Training:
    images, labels, held_images, held_labels = split()
    return vv.Training(
        model=network, loss=loss, optimizer=adam, data=Images(images, labels), batch_size=BATCH, epochs=EPOCHS,
        evaluate=Accuracy(held_images, held_labels), seed=seed, name="mnist",
    )  # fmt: skip


def pytorch(seed: int, epochs: int) -> Course:
    """The loop of PyTorch's quickstart (https://docs.pytorch.org/tutorials/beginner/basics/quickstart_tutorial.html)."""
    torch.manual_seed(seed)
    images, labels, held_images, held_labels = split()
    loader = DataLoader(Images(images, labels), batch_size=BATCH, shuffle=True)
    model, loss_of, score = network(), nn.CrossEntropyLoss(), Accuracy(held_images, held_labels)
    optimizer, course = adam(model.parameters()), Course()

    def epoch() -> None:
        model.train()
        for x, y in loader:
            found = loss_of(model(x), y)
            found.backward()
            optimizer.step()
            optimizer.zero_grad()

    for _ in range(epochs):
        course.timed(epoch)
        course.scores.append(score(model.eval()))
    return course


def pytorch_one_thread(seed: int, epochs: int) -> Course:
    """The same with one thread."""
    torch.set_num_threads(1)
    return pytorch(seed, epochs)


ARMS = {"pytorch-tutorial": pytorch, "pytorch-tutorial-1-thread": pytorch_one_thread}
KERAS = ("tensorflow", "jax", "torch")
"""Back ends on which Keras trains the same; see keras_mnist.py."""
