"""A recorder of training steps that needs no card."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class FakeGraph:
    """A graph on the CPU: what was captured is computed again, into the memory of the first time. Like a card's, it
    leaves alone which tensors the parameters have for gradients."""

    def __init__(self, model: nn.Module) -> None:
        self._parameters = list(model.parameters())

    def warm(self, step: Callable[[], torch.Tensor]) -> torch.Tensor:
        return step()

    def record(self, step: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable[[], None]]:
        loss, memory = self._computed(step)
        for parameter, gradient in zip(self._parameters, memory, strict=True):
            parameter.grad = gradient

        def replay() -> None:
            before = [parameter.grad for parameter in self._parameters]
            again, gradients = self._computed(step)
            loss.copy_(again)
            for kept, gradient in zip(memory, gradients, strict=True):
                if kept is not None:
                    kept.copy_(gradient)
            for parameter, gradient in zip(self._parameters, before, strict=True):
                parameter.grad = gradient

        return loss, replay

    def _computed(self, step: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, list[Any]]:
        for parameter in self._parameters:
            parameter.grad = None
        return step(), [parameter.grad for parameter in self._parameters]
