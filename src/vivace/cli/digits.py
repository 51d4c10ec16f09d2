"""The demo's job: a small convolutional network on the real handwritten digits that scikit-learn ships."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from vivace.core.errors import MissingExtra

TRAINING_IMAGES = 697
"""Of 1797; the other 1100 are never trained on and judge the candidates."""
BATCH = 64
EPOCHS = 14
SEED = 20260101
Batch = tuple[torch.Tensor, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Digits:
    """Images are float32 [n, 1, 16, 16] in 0..1 (8 x 8 pixels, doubled); labels are 0 to 9."""

    images: torch.Tensor
    labels: torch.Tensor

    def batches(self, size: int = BATCH) -> list[Batch]:
        """Pairs of (images, labels), in order."""
        return list(zip(torch.split(self.images, size), torch.split(self.labels, size), strict=True))

    def __getitem__(self, part: slice) -> Digits:
        return Digits(self.images[part], self.labels[part])


class DigitsNetwork(nn.Module):
    """Three convolutions with batch normalization, then a linear layer: 98,000 weights."""

    def __init__(self, widths: Sequence[int] = (32, 64, 128)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in zip((1, *widths), widths, strict=False):
            layers += [
                nn.Conv2d(before, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        self.features = nn.Sequential(*layers)
        self.classify = nn.Linear(widths[-1] * 4, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores [n, 10] for images [n, 1, 16, 16]."""
        scores: torch.Tensor = self.classify(self.features(images).flatten(1))
        return scores


def load_digits() -> tuple[Digits, Digits]:
    """The images for training and the images held out, shuffled once by a fixed seed.

    Source: E. Alpaydin, C. Kaynak, "Optical recognition of handwritten digits", UCI, 1998, as scikit-learn ships it.
    Raises MissingExtra without scikit-learn.
    """
    try:
        from sklearn import datasets
    except ImportError:
        raise MissingExtra("scikit-learn", "demo", "the demo's handwritten digits") from None
    raw = datasets.load_digits()
    order = torch.randperm(len(raw.target), generator=torch.Generator().manual_seed(SEED))
    images = torch.from_numpy(raw.images).float().div(16).unsqueeze(1)[order]
    digits = Digits(
        functional.interpolate(images, scale_factor=2.0, mode="bilinear"), torch.from_numpy(raw.target).long()[order]
    )
    return digits[:TRAINING_IMAGES], digits[TRAINING_IMAGES:]


def train_network(digits: Digits, epochs: int = EPOCHS) -> DigitsNetwork:
    """A trained network in eval mode; a few seconds on one core. The same numbers each time on one machine.

    One thread: on a busy machine several threads that wait for one another can be a hundred times slower.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            return _train(digits, epochs)
    finally:
        torch.set_num_threads(threads)


def _train(digits: Digits, epochs: int) -> DigitsNetwork:
    network = DigitsNetwork().train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    steps = epochs * -(-len(digits.labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    for _ in range(epochs):
        order = torch.randperm(len(digits.labels))
        for part in torch.split(order, BATCH):
            loss = functional.cross_entropy(
                network(_shifted(digits.images[part])), digits.labels[part], label_smoothing=0.05
            )
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    return network.eval()


def _shifted(images: torch.Tensor) -> torch.Tensor:
    """Each batch moved by up to one pixel either way, so that the network learns shapes rather than places."""
    down, right = (int(step) for step in torch.randint(-1, 2, (2,)))
    return images.roll((down, right), dims=(2, 3))


def accuracy_of(network: nn.Module, digits: Digits) -> float:
    """The share of images whose label gets the highest score."""
    with torch.inference_mode():
        return float((network(digits.images).argmax(1) == digits.labels).float().mean())
