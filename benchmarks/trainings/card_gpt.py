"""A GPT on the characters of tinyshakespeare on a card, in the sizes that nanoGPT gives for one.

6 layers, 6 heads, 384 wide, 256 characters, 64 windows a batch, AdamW at 1e-3 (https://github.com/karpathy/nanoGPT,
config/train_shakespeare_char.py, without its dropout). An epoch is what 400,000 characters hold.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import vivace as vv
from prepare import NotAvailable, text
from trainings import gpt
from trainings.course import Course

EPOCHS, BATCH = 20, 64
LENGTH, WIDTH, HEADS, LAYERS = 256, 384, 6, 6
TARGET = -2.0
"""The held-out loss with its sign turned: nats a character."""
HELD_OUT = 128
COMPARED_STEPS, TRIED = 60, "2m"


def split() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Windows to train on with their targets, and held-out ones. Raises NotAvailable without a card."""
    if not torch.cuda.is_available():
        raise NotAvailable("PyTorch sees no CUDA device here")
    inputs, targets = text(LENGTH)
    inputs, targets = inputs.contiguous(), targets.contiguous()
    cut = (len(inputs) - HELD_OUT) // BATCH * BATCH
    return inputs[:cut], targets[:cut], inputs[-HELD_OUT:].cuda(), targets[-HELD_OUT:].cuda()


def network() -> nn.Module:
    return gpt.Gpt(LENGTH, WIDTH, HEADS, LAYERS).cuda()


def loss(model: nn.Module, batch: Any) -> Tensor:
    """Batches are sent by whoever gives them, or here."""
    return gpt.loss(model, [one.cuda(non_blocking=True) for one in batch])


def job(seed: int) -> vv.Training:
    inputs, targets, held_inputs, held_targets = split()
    return vv.Training(
        model=network, loss=loss, optimizer=gpt.adamw, data=gpt.Windows(inputs, targets), batch_size=BATCH,
        epochs=EPOCHS, evaluate=gpt.HeldOut(held_inputs, held_targets), seed=seed, name="card-gpt",
    )  # fmt: skip


def eager(seed: int, epochs: int) -> Course:
    """Eager PyTorch with all windows on the card, so that nothing waits for input."""
    torch.manual_seed(seed)
    inputs, targets, held_inputs, held_targets = split()
    inputs, targets = inputs.cuda(), targets.cuda()
    model, score = network(), gpt.HeldOut(held_inputs, held_targets)
    optimizer, course = gpt.adamw(model.parameters()), Course()

    def epoch() -> None:
        model.train()
        for chosen in torch.randperm(len(inputs), device="cuda").split(BATCH):
            optimizer.zero_grad(set_to_none=True)
            gpt.loss(model, (inputs[chosen], targets[chosen])).backward()
            optimizer.step()

    for _ in range(epochs):
        course.timed(epoch, torch.cuda.synchronize)
        course.scores.append(score(model.eval()))
    return course


ARMS = {"pytorch-eager": eager}
KERAS: tuple[str, ...] = ()
