"""A convolutional network with batch normalization on images of digits, on a card, in the manner of airbench.

Four convolutions of up to 256 channels (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds", arXiv:2404.00498, has six), SGD
with Nesterov momentum and smoothed labels. 8,000 images to train on and 2,000 held out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import vivace as vv
from prepare import NotAvailable, mnist
from trainings.course import Course
from trainings.mnist import Accuracy, Images

EPOCHS, BATCH = 20, 250
TARGET = 0.98
HELD_OUT = 0.2
WIDTHS = (64, 128, 256, 256)
COMPARED_STEPS, TRIED = 64, "2m"
RATE, MOMENTUM, DECAY, SMOOTHING = 0.05, 0.9, 5e-4, 0.1


def split() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images [N, 1, 28, 28] and labels to train on; those held out, on the card. Raises NotAvailable without one."""
    if not torch.cuda.is_available():
        raise NotAvailable("PyTorch sees no CUDA device here")
    images, labels = mnist()
    side = int(images.shape[1] ** 0.5)
    images, cut = images.reshape(-1, 1, side, side), int(len(images) * (1 - HELD_OUT))
    return images[:cut], labels[:cut], images[cut:].cuda(), labels[cut:].cuda()


def network() -> nn.Module:
    layers: list[nn.Module] = []
    for inward, outward in zip((1, *WIDTHS[:-1]), WIDTHS, strict=True):
        layers += [nn.Conv2d(inward, outward, 3, padding=1, bias=False), nn.BatchNorm2d(outward), nn.GELU()]
        layers += [nn.MaxPool2d(2)] if outward > inward > 1 else []
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(WIDTHS[-1], 10)).cuda()


def loss(model: nn.Module, batch: Any) -> Tensor:
    """Batches are sent by whoever gives them, or here."""
    images, labels = (one.cuda(non_blocking=True) for one in batch)
    return nn.functional.cross_entropy(model(images), labels, label_smoothing=SMOOTHING)


def nesterov(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=RATE, momentum=MOMENTUM, weight_decay=DECAY, nesterov=True)


def job(seed: int) -> vv.Training:
    images, labels, held_images, held_labels = split()
    return vv.Training(
        model=network, loss=loss, optimizer=nesterov, data=Images(images, labels), batch_size=BATCH, epochs=EPOCHS,
        evaluate=Accuracy(held_images, held_labels), seed=seed, name="card-images",
    )  # fmt: skip


def trained(seed: int, epochs: int, batches: Any) -> Course:
    """Eager PyTorch over `batches`, a function that gives an epoch's."""
    model, course = network(), Course()
    score, optimizer = Accuracy(*split()[2:]), nesterov(model.parameters())

    def epoch() -> None:
        model.train()
        for batch in batches():
            optimizer.zero_grad()
            loss(model, batch).backward()
            optimizer.step()

    for _ in range(epochs):
        course.timed(epoch, torch.cuda.synchronize)
        course.scores.append(score(model.eval()))
    return course


def tutorial(seed: int, epochs: int) -> Course:
    """The loop of PyTorch's quickstart on a card: a DataLoader in this process, each batch sent when it is needed."""
    torch.manual_seed(seed)
    images, labels, *_ = split()
    loader = DataLoader(Images(images, labels), batch_size=BATCH, shuffle=True)
    return trained(seed, epochs, lambda: iter(loader))


def resident(seed: int, epochs: int) -> Course:
    """Eager PyTorch with all images on the card, so that nothing waits for input."""
    torch.manual_seed(seed)
    images, labels, *_ = split()
    images, labels = images.cuda(), labels.cuda()
    order = (torch.randperm(len(images), device="cuda") for _ in range(epochs))
    return trained(seed, epochs, lambda: ((images[one], labels[one]) for one in next(order).split(BATCH)))


ARMS = {"pytorch-tutorial": tutorial, "pytorch-eager-resident": resident}
KERAS: tuple[str, ...] = ()
