"""Dynamic loss scaling: the scale doubles while gradients are finite, and halves, with the step left out, where not."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim import Optimizer

FIRST_SCALE = 4096.0
"""Low enough that first steps of usual losses are taken, not left out until the scale has come down."""


class DynamicScaling:
    """PyTorch's GradScaler with its state as numbers and its skipped steps counted.

    Source: Micikevicius et al., Mixed Precision Training, ICLR 2018 (arXiv:1710.03740), section 3.2.
    """

    def __init__(self, device: str, first_scale: float = FIRST_SCALE) -> None:
        self.skipped = 0
        self._scaler = torch.amp.GradScaler(device, init_scale=first_scale)

    def scale(self, loss: Tensor) -> Tensor:
        """The loss times the scale."""
        return self._scaler.scale(loss)

    def step(self, optimizer: Optimizer) -> None:
        """Scale gradients back, so that whoever looks sees true ones; take the step if all are finite."""
        before = self._scaler.get_scale()
        self._scaler.unscale_(optimizer)
        self._scaler.step(optimizer)
        self._scaler.update()
        self.skipped += self._scaler.get_scale() < before

    def state(self) -> dict[str, float]:
        """The scale, how long it has been good, and the steps that were left out."""
        kept = self._scaler.state_dict()
        return {"scale": kept["scale"], "tracker": kept["_growth_tracker"], "skipped": self.skipped}

    def load(self, state: Mapping[str, float]) -> None:
        """Go on from there."""
        own = self._scaler.state_dict()
        self._scaler.load_state_dict({**own, "scale": state["scale"], "_growth_tracker": int(state["tracker"])})
        self.skipped = int(state["skipped"])
