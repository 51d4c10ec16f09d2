"""A small GPT on the characters of tinyshakespeare, in the sizes that nanoGPT gives for a processor.

4 layers, 4 heads, 128 wide, 64 characters, 12 windows a batch, AdamW at 1e-3 (https://github.com/karpathy/nanoGPT,
README, "I only have a macbook"), for 200 steps an epoch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import vivace as vv
from prepare import LETTERS, text
from trainings.course import Course

EPOCHS, BATCH = 10, 12
LENGTH, WIDTH, HEADS, LAYERS = 64, 128, 4, 4
TARGET = -2.2
"""The held-out loss with its sign turned: nats a character."""
STEPS_AN_EPOCH, HELD_OUT = 200, 240
COMPARED_STEPS, TRIED = 60, "5m"


class Windows(torch.utils.data.Dataset[Any]):
    """Windows of characters, each with the characters that follow."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index], self.targets[index]


def split() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Windows to train on with their targets, and held-out ones."""
    inputs, targets = text(LENGTH)
    inputs, targets = inputs.contiguous(), targets.contiguous()
    cut = STEPS_AN_EPOCH * BATCH
    return inputs[:cut], targets[:cut], inputs[-HELD_OUT:], targets[-HELD_OUT:]


class Block(nn.Module):
    """Attention to what came before, and two linear layers, each with a residual connection."""

    def __init__(self, width: int = WIDTH, heads: int = HEADS) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.inward, self.outward = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        heads = self.inward(self.norms[0](x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(heads[0], heads[1], heads[2], is_causal=True)
        x = x + self.outward(seen.transpose(1, 2).flatten(2))
        return x + self.wide(self.norms[1](x))


class Gpt(nn.Module):
    """Characters in, scores of the next characters out; the embedding is the last layer too."""

    def __init__(self, length: int = LENGTH, width: int = WIDTH, heads: int = HEADS, layers: int = LAYERS) -> None:
        super().__init__()
        self.letters, self.places = nn.Embedding(LETTERS, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm, self.last = nn.LayerNorm(width), nn.Linear(width, LETTERS, bias=False)
        self.last.weight = self.letters.weight
        self.register_buffer("order", torch.arange(length), persistent=False)
        for weight in self.parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=0.02)

    order: Tensor

    def forward(self, letters: Tensor) -> Tensor:  # [windows, characters] -> [windows, characters, LETTERS]
        x = self.letters(letters) + self.places(self.order[: letters.shape[1]])
        scores: Tensor = self.last(self.norm(self.blocks(x)))
        return scores


def loss(model: nn.Module, batch: Any) -> Tensor:
    letters, following = batch
    return functional.cross_entropy(model(letters).flatten(0, 1), following.flatten())


def adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1)


class HeldOut:
    """The held-out loss with its sign turned."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.inputs, self.targets = inputs, targets

    def __call__(self, model: nn.Module) -> float:
        with torch.no_grad():
            return -float(loss(model, (self.inputs, self.targets)))


def job(seed: int) -> vv.Training:
    inputs, targets, held_inputs, held_targets = split()
    return vv.Training(
        model=Gpt, loss=loss, optimizer=adamw, data=Windows(inputs, targets), batch_size=BATCH, epochs=EPOCHS,
        evaluate=HeldOut(held_inputs, held_targets), seed=seed, name="gpt",
    )  # fmt: skip


def eager(seed: int, epochs: int) -> Course:
    """Eager PyTorch with batches cut from one tensor, as nanoGPT does: nothing waits for input."""
    torch.manual_seed(seed)
    inputs, targets, held_inputs, held_targets = split()
    model, score = Gpt(), HeldOut(held_inputs, held_targets)
    optimizer, course = adamw(model.parameters()), Course()

    def epoch() -> None:
        model.train()
        for chosen in torch.randperm(len(inputs)).split(BATCH):
            optimizer.zero_grad(set_to_none=True)
            loss(model, (inputs[chosen], targets[chosen])).backward()
            optimizer.step()

    for _ in range(epochs):
        course.timed(epoch)
        course.scores.append(score(model.eval()))
    return course


ARMS = {"pytorch-eager": eager}
KERAS: tuple[str, ...] = ()
