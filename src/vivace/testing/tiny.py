"""Tiny seeded models with example calls: one of each shape of model and of answer that people bring."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclasses.dataclass(frozen=True)
class Tiny:
    """One tiny model: `build` makes the module, `call` a call of that many samples with a generator.

    `classes` is the number of scores that its first output gives a sample, 0 where it gives none.
    """

    name: str
    build: Callable[[], nn.Module]
    call: Callable[[int, torch.Generator], Any]
    classes: int = 0

    def model(self, seed: int = 0) -> nn.Module:
        """The module in eval mode, its weights drawn from the seed; the process's own random state is kept."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = self.build()
            for child in module.modules():
                if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                    _settle(child)
        return module.eval()

    def inputs(self, samples: int = 4, seed: int = 1) -> Any:
        """One call: a tuple by position or a dict by name."""
        return self.call(samples, torch.Generator().manual_seed(seed))

    def pairs(self, batches: int = 8, samples: int = 4, seed: int = 2) -> list[tuple[Any, Tensor]]:
        """Labelled batches: each label is the decision of the model itself, built from the same seed as `model()`."""
        if not self.classes:
            raise ValueError(f"{self.name} gives no scores, so it has no labels")
        module, calls = self.model(), [self.inputs(samples, seed + i) for i in range(batches)]
        with torch.no_grad():
            return [(call, answer(module, call).argmax(-1)) for call in calls]


def answer(module: Callable[..., Any], call: Any) -> Any:
    """Call a model as the call says: by name for a dict, by position for a tuple."""
    return module(**call) if isinstance(call, dict) else module(*call)


def _settle(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    """Statistics as after training, so that leaving the normalization out would be noticed."""
    for tensor, low, high in (
        (norm.running_mean, -0.5, 0.5),
        (norm.running_var, 0.5, 2.0),
        (norm.weight, 0.5, 1.5),
        (norm.bias, -0.5, 0.5),
    ):
        if tensor is not None:
            nn.init.uniform_(tensor, low, high)


@dataclasses.dataclass
class Detection:
    """An answer as a dataclass."""

    scores: Tensor
    box: Tensor


class Residual(nn.Module):
    """A stem, one residual block, a pooled head; the first convolution has no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        self.block = nn.Sequential(
            nn.Conv2d(16, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.BatchNorm2d(16),
        )
        self.head = nn.Linear(16, 5)

    def forward(self, image: Tensor) -> Tensor:
        """[N, 3, H, W] to [N, 5]."""
        x = self.stem(image)
        scores: Tensor = self.head(torch.relu(x + self.block(x)).mean((2, 3)))
        return scores


class HandWrittenAttention(nn.Module):
    """Attention out of matrix products and a softmax, as many codebases still write it."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(32, 32) for _ in range(4))
        self.norm = nn.LayerNorm(32)

    def forward(self, tokens: Tensor) -> Tensor:
        """[N, T, 32] to [N, T, 32]."""
        q, k, v = (self._heads(layer(tokens)) for layer in (self.query, self.key, self.value))
        weights = torch.softmax(q @ k.transpose(-2, -1) / 4.0, dim=-1)
        mixed = (weights @ v).transpose(1, 2).flatten(2)
        normalized: Tensor = self.norm(tokens + self.out(mixed))
        return normalized

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], 2, 16).transpose(1, 2)


class Recurrent(nn.Module):
    """An LSTM over a sequence and a head on its last step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 32, batch_first=True)
        self.head = nn.Linear(32, 6)

    def forward(self, sequence: Tensor) -> Tensor:
        """[N, T, 8] to [N, 6]."""
        scores: Tensor = self.head(self.lstm(sequence)[0][:, -1])
        return scores


class Encoder(nn.Module):
    """PyTorch's own transformer encoder, pooled."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(32, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        """[N, T, 32] to [N, 5]."""
        scores: Tensor = self.head(self.encoder(tokens).mean(1))
        return scores


class ByName(nn.Module):
    """Called by name, answers with a dict; the mask is optional in use and given here."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 32), nn.Linear(32, 5)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """[N, 16] and [N, 16] to hidden [N, 32] and scores [N, 5]."""
        hidden = functional.gelu(self.first(features if mask is None else features * mask))
        return {"scores": self.second(hidden), "hidden": hidden}


class Detector(nn.Module):
    """Answers with a dataclass."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.scores, self.box = nn.Linear(16, 32), nn.Linear(32, 5), nn.Linear(32, 4)

    def forward(self, features: Tensor) -> Detection:
        """[N, 16] to scores [N, 5] and box [N, 4]."""
        hidden = torch.relu(self.trunk(features))
        return Detection(self.scores(hidden), self.box(hidden).sigmoid())


class Pair(nn.Module):
    """Answers with a tuple of two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """[N, 16] to two [N, 16]."""
        left = torch.tanh(self.left(features))
        return left, self.right(left)


class Words(nn.Module):
    """An embedding of integers, pooled, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(50, 32), nn.Linear(32, 5)

    def forward(self, ids: Tensor) -> Tensor:
        """[N, T] of int64 to [N, 5]."""
        scores: Tensor = self.head(self.table(ids).mean(1))
        return scores


class Branching(nn.Module):
    """Cannot be exported: its path depends on the values of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 8] to [N, 4]."""
        scores: Tensor = self.layer(x)
        return scores if float(x.sum()) > 0 else -scores


class Noisy(nn.Module):
    """Answers differently each time, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 8] to [N, 4]."""
        scores: Tensor = self.layer(x)
        return scores + torch.randn(x.shape[0], 4)


class Paced(nn.Module):
    """Sleeps `seconds` in each call and then does next to nothing: a baseline whose time is known.

    A captured program does not sleep; the planted `equal`, `slower` and `faster` do, in its place.
    """

    def __init__(self, seconds: float = 0.01) -> None:
        super().__init__()
        self.seconds = seconds
        self.layer = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 16] to [N, 5]."""
        time.sleep(self.seconds)
        scores: Tensor = self.layer(x)
        return scores


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))


def _conv_batchnorm() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * 9, 5)
    )


def _linear_batchnorm() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 5))


def _draw(*shape: int) -> Callable[[int, torch.Generator], tuple[Tensor]]:
    return lambda samples, generator: (torch.randn(samples, *shape, generator=generator),)


def _named(samples: int, generator: torch.Generator) -> dict[str, Tensor]:
    features = torch.randn(samples, 16, generator=generator)
    return {"features": features, "mask": (torch.rand(samples, 16, generator=generator) > 0.2).float()}


def _ids(samples: int, generator: torch.Generator) -> tuple[Tensor]:
    return (torch.randint(0, 50, (samples, 7), generator=generator),)


MODELS: tuple[Tiny, ...] = (
    Tiny("mlp", _mlp, _draw(16), 5),
    Tiny("conv-batchnorm", _conv_batchnorm, _draw(3, 8, 8), 5),
    Tiny("linear-batchnorm", _linear_batchnorm, _draw(16), 5),
    Tiny("residual", Residual, _draw(3, 8, 8), 5),
    Tiny("encoder", Encoder, _draw(6, 32), 5),
    Tiny("attention", HandWrittenAttention, _draw(6, 32)),
    Tiny("lstm", Recurrent, _draw(6, 8), 6),
    Tiny("by-name", ByName, _named),
    Tiny("dataclass", Detector, _draw(16)),
    Tiny("tuple", Pair, _draw(16)),
    Tiny("embedding", Words, _ids, 5),
)
"""Models that every technique must leave right, or decline."""

BRANCHING = Tiny("branching", Branching, _draw(8), 4)
NOISY = Tiny("noisy", Noisy, _draw(8), 4)
PACED = Tiny("paced", Paced, _draw(16), 5)


def tiny(name: str) -> Tiny:
    """One of MODELS by name. Raises KeyError."""
    return {model.name: model for model in MODELS}[name]
