"""Real data for the benchmark's workloads, and networks trained on them here: seeded, once, kept as safetensors."""

from __future__ import annotations

import gzip
import os
import pydoc_data.topics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
WORK = HERE / "work"
LETTERS = 96
"""Printable ASCII, and one symbol for everything else."""
Loss = Callable[[Tensor, Tensor], Tensor]


def data_folder() -> Path | None:
    """Where larger real data lie, if they do: $VIVACE_DATA, or `data` in this checkout."""
    folder = Path(os.environ.get("VIVACE_DATA", HERE.parent / "data"))
    return folder if folder.is_dir() else None


def digits(size: int = 8, channels: int = 1) -> tuple[Tensor, Tensor]:
    """scikit-learn's 1,797 handwritten digits, shuffled once and scaled up: images [N, C, size, size] and labels."""
    bunch = load_digits()
    images = torch.tensor(bunch.images / 16, dtype=torch.float32)[:, None]
    if size != 8:
        images = nn.functional.interpolate(images, size=size, mode="bilinear", align_corners=False)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return (images.repeat(1, channels, 1, 1) - 0.3)[order], torch.tensor(bunch.target)[order]


def mnist() -> tuple[Tensor, Tensor]:
    """10,000 MNIST digits [N, 784] where the data folder has them; else scikit-learn's digits scaled up to 28 x 28."""
    folder = data_folder()
    if folder is None or not (folder / "mnist-t10k").is_dir():
        images, labels = digits(28)
        return images.flatten(1), labels
    images = _idx(folder / "mnist-t10k" / "t10k-images-idx3-ubyte.gz", 16).reshape(-1, 784)
    labels = _idx(folder / "mnist-t10k" / "t10k-labels-idx1-ubyte.gz", 8)
    return torch.tensor(images / 255, dtype=torch.float32) - 0.1, torch.tensor(labels, dtype=torch.int64)


def large_digits(size: int) -> tuple[Tensor, Tensor, int]:
    """Digits scaled up to images [N, 3, size, size], labels, and how many of them are there to train on.

    4,000 MNIST digits to train on and 2,000 held out, where the data folder has them: whether a hundredth of
    the answers is lost cannot be told from a few hundred. Else scikit-learn's 1,797, with 600 of them to train on.
    """
    folder = data_folder()
    if folder is None or not (folder / "mnist-t10k").is_dir():
        return *digits(size, channels=3), 600
    images, labels = mnist()
    small = images[:6000].reshape(-1, 1, 28, 28)
    scaled = nn.functional.interpolate(small, size=size, mode="bilinear", align_corners=False)
    return scaled.repeat(1, 3, 1, 1), labels[:6000], 4000


def _idx(path: Path, header: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress(path.read_bytes()), dtype=np.uint8, offset=header)


def text(length: int) -> tuple[Tensor, Tensor]:
    """Windows of `length` characters [N, T] and the characters that follow each one [N, T].

    The plays of tinyshakespeare where the data folder has them; else the language topics that Python itself ships.
    """
    folder = data_folder()
    file = folder / "tinyshakespeare" / "input.txt" if folder else None
    words = file.read_text() if file and file.is_file() else "".join(pydoc_data.topics.topics.values())
    codes = torch.tensor([min(max(ord(c) - 31, 0), LETTERS - 1) for c in words[:400_000]])
    windows = codes[: len(codes) // (length + 1) * (length + 1)].reshape(-1, length + 1)
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))
    return windows[order, :-1], windows[order, 1:]


def pairs(inputs: Tensor, targets: Tensor, batch: int) -> list[tuple[Tensor, Tensor]]:
    """Whole batches of (inputs, target)."""
    count = len(inputs) // batch * batch
    return list(zip(inputs[:count].split(batch), targets[:count].split(batch), strict=True))


class NotAvailable(Exception):
    """A workload cannot be made ready here; the message says what is missing and how to get it."""


def kept(name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors that are made once and then read from the work folder."""
    file = WORK / f"{name}.safetensors"
    if not file.is_file():
        WORK.mkdir(parents=True, exist_ok=True)
        save_file({key: value.contiguous() for key, value in make().items()}, file)
    return load_file(file)


def trained(name: str, build: Callable[[], nn.Module], inputs: Tensor, targets: Tensor, epochs: int,
            rate: float = 2e-3, batch: int = 32, loss: Loss | None = None) -> nn.Module:  # fmt: skip
    """A network trained with AdamW and a falling rate, seeded; read from the work folder when it was trained before.

    `loss` is (output, target) -> scalar; cross-entropy over the last axis where none is given.
    """
    torch.manual_seed(0)
    model = build()

    def weights() -> dict[str, Tensor]:
        _fit(model, inputs, targets, epochs, rate, batch, loss or _cross_entropy)
        return model.state_dict()

    model.load_state_dict(kept(f"{name}-{epochs}-{len(inputs)}", weights))
    return model.eval()


def _cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output.flatten(0, -2), target.flatten())


def _fit(model: nn.Module, inputs: Tensor, targets: Tensor, epochs: int, rate: float, batch: int, loss: Loss) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), rate)
    steps = epochs * (len(inputs) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for step in range(steps):
        if step % (len(inputs) // batch) == 0:
            order = torch.randperm(len(inputs))
        chosen = order[step * batch % (len(inputs) // batch * batch) :][:batch]
        optimizer.zero_grad()
        loss(model(inputs[chosen]), targets[chosen]).backward()
        optimizer.step()
        schedule.step()
