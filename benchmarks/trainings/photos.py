"""A convolutional network with batch normalization on JPEG files: which digit was put into a photograph.

The files are made once, of real images that scikit-learn ships: each handwritten digit is scaled, turned and blended
into a crop of one of two photographs, and written as a JPEG of 480 x 360, from a seed of its own. Handwritten digits
that are held out are in no file that is trained on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import vivace as vv
from prepare import WORK, NotAvailable
from trainings.course import Course

EPOCHS, BATCH = 14, 32
TARGET = 0.6
"""Of held-out files; chance is 0.1, and the training files are few."""
TRAINED, HELD_OUT = 1200, 400
FILE, SIDE = (480, 360), 64
"""Files about as large as ImageNet's are on average, and what the network sees of them."""
COMPARED_STEPS, TRIED = 60, "3m"
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, as the tutorial normalizes."""


def files() -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Paths with their labels, to train on and held out. Raises NotAvailable without Pillow."""
    image = pillow()
    folder = WORK / f"photos-{FILE[0]}x{FILE[1]}-{TRAINED}-{HELD_OUT}"
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))[: TRAINED + HELD_OUT]
    names = [(folder / f"{number:05d}.jpg", int(digits.target[number])) for number in sorted(order)]
    missing = [(path, number) for (path, _), number in zip(names, sorted(order), strict=True) if not path.is_file()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        photographs = load_sample_images().images
        for path, number in missing:
            composed(image, photographs, digits.images[number], int(number)).save(path, quality=90)
    listed = [(str(path), label) for path, label in names]
    shuffled = [listed[i] for i in np.random.default_rng(1).permutation(len(listed))]
    return shuffled[:TRAINED], shuffled[TRAINED:]


def composed(image: Any, photographs: list[np.ndarray], digit: np.ndarray, seed: int) -> Any:
    """A digit in a photograph: ink darkens or brightens what is behind it by half or more."""
    chance = np.random.default_rng(seed)
    photograph = photographs[chance.integers(len(photographs))]
    width = int(chance.integers(FILE[0], photograph.shape[1] + 1))
    height = width * FILE[1] // FILE[0]
    height = min(height, photograph.shape[0])
    left, top = (int(chance.integers(photograph.shape[axis] - size + 1)) for axis, size in ((1, width), (0, height)))
    behind = image.fromarray(photograph[top : top + height, left : left + width]).resize(FILE)
    behind = behind.rotate(float(chance.uniform(-8, 8)), resample=image.BILINEAR)
    side = int(chance.integers(FILE[1] * 7 // 10, FILE[1] * 24 // 25))
    ink = image.fromarray((digit / 16 * 255).astype(np.uint8)).resize((side, side), image.BICUBIC)
    ink = ink.rotate(float(chance.uniform(-12, 12)), resample=image.BILINEAR)
    mask = image.new("L", FILE)
    mask.paste(ink, (int(chance.integers(FILE[0] - side + 1)), int(chance.integers(FILE[1] - side + 1))))
    strength = float(chance.uniform(0.75, 0.95))
    tone = image.new("RGB", FILE, (250, 245, 240) if chance.random() < 0.5 else (10, 12, 20))
    return image.composite(tone, behind, mask.point(lambda value: int(value * strength)))


def pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise NotAvailable("Pillow decodes the files; pip install -r benchmarks/requirements.txt") from None
    return Image


class Photographs(Dataset[Any]):
    """Files that are opened, decoded, scaled and normalized one by one, as the tutorial's datasets do it."""

    def __init__(self, listed: list[tuple[str, int]]) -> None:
        self.listed = listed

    def __len__(self) -> int:
        return len(self.listed)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.listed[index]
        with pillow().open(Path(path)) as opened:
            pixels = np.asarray(opened.convert("RGB").resize((SIDE, SIDE)), dtype=np.float32) / 255
        pixels = (pixels - np.float32(MEAN)) / np.float32(SPREAD)
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), label


def network() -> nn.Module:
    """Four convolutions with batch normalization, and a linear layer."""
    layers: list[nn.Module] = []
    for inward, outward in ((3, 16), (16, 32), (32, 64), (64, 96)):
        layers += [nn.Conv2d(inward, outward, 3, padding=1, bias=False), nn.BatchNorm2d(outward), nn.ReLU(),
                   nn.MaxPool2d(2)]  # fmt: skip
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(96 * (SIDE // 16) ** 2, 10))


def loss(model: nn.Module, batch: Any) -> Tensor:
    images, labels = batch
    return nn.functional.cross_entropy(model(images), labels)


def momentum(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.005, momentum=0.9, weight_decay=1e-4)


class Accuracy:
    """The share of held-out files that a model names; they are decoded once."""

    def __init__(self, listed: list[tuple[str, int]]) -> None:
        pairs = [Photographs(listed)[number] for number in range(len(listed))]
        self.images = torch.stack([pixels for pixels, _ in pairs])
        self.labels = torch.tensor([label for _, label in pairs])

    def __call__(self, model: nn.Module) -> float:
        with torch.no_grad():
            answers = torch.cat([model(part).argmax(1) for part in self.images.split(100)])
        return float((answers == self.labels).double().mean())


def job(seed: int) -> vv.Training:
    to_train_on, held_out = files()
    return vv.Training(
        model=network, loss=loss, optimizer=momentum, data=Photographs(to_train_on), batch_size=BATCH, epochs=EPOCHS,
        evaluate=Accuracy(held_out), seed=seed, name="photos",
    )  # fmt: skip


def pytorch(seed: int, epochs: int, workers: int = 0) -> Course:
    """The loop of PyTorch's tutorial of transfer learning, without the transfer: a DataLoader in this process, which is
    what a DataLoader does unless it is told otherwise."""
    torch.manual_seed(seed)
    to_train_on, held_out = files()
    loader = DataLoader(Photographs(to_train_on), batch_size=BATCH, shuffle=True, num_workers=workers,
                        persistent_workers=workers > 0)  # fmt: skip
    model, loss_of, score = network(), nn.CrossEntropyLoss(), Accuracy(held_out)
    optimizer, course = momentum(model.parameters()), Course()

    def epoch() -> None:
        model.train()
        for images, labels in loader:
            optimizer.zero_grad()
            found = loss_of(model(images), labels)
            found.backward()
            optimizer.step()

    for _ in range(epochs):
        course.timed(epoch)
        course.scores.append(score(model.eval()))
    return course


def pytorch_workers(seed: int, epochs: int) -> Course:
    """The same with the 4 worker processes of that tutorial, which live as long as the training."""
    return pytorch(seed, epochs, workers=4)


ARMS = {"pytorch-4-workers": pytorch_workers, "pytorch-no-workers": pytorch}
KERAS: tuple[str, ...] = ()
