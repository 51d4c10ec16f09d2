"""Training techniques whose gradients are right, and whose step returns another number than its loss."""

from __future__ import annotations

import dataclasses
import itertools
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch

from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.testing.planted_training import Planted
from vivace.training.step import accumulate

Told = Callable[[torch.Tensor, Any], torch.Tensor]


class _Misreporting(Planted):
    """What they share: gradients are set as before, and `telling` makes another number of the loss."""

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig that returns what is told."""
        passes, told = rig.gradients or _passes(rig), self.telling(rig)
        return rig.replace(gradients=lambda batch: told(passes(batch), batch))

    @abstractmethod
    def telling(self, rig: Rig) -> Told:
        """(loss, batch) -> what is returned in its place."""


def _passes(rig: Rig) -> Callable[[Any], torch.Tensor]:
    def passes(batch: Any) -> torch.Tensor:
        rig.optimizer.zero_grad(set_to_none=True)
        return accumulate(rig, batch)

    return passes


@dataclasses.dataclass(frozen=True)
class ScaledLoss(_Misreporting):
    """From step `after` on the loss that is returned is `factor` as large, as a sum over parts that is averaged."""

    factor: float = 0.5
    after: int = 0

    def telling(self, rig: Rig) -> Told:
        """The loss times a factor."""
        steps = itertools.count()
        return lambda loss, batch: loss * (self.factor if next(steps) >= self.after else 1.0)


@dataclasses.dataclass(frozen=True)
class LastPartsLoss(_Misreporting):
    """The loss that is returned is that of the second half of a batch alone."""

    def telling(self, rig: Rig) -> Told:
        """The loss of the half, computed once more."""

        def told(loss: torch.Tensor, batch: Any) -> torch.Tensor:
            with torch.no_grad():
                return rig.forward([leaf[len(leaf) // 2 :] for leaf in batch])

        return told


@dataclasses.dataclass(frozen=True)
class StaleLoss(_Misreporting):
    """The loss that is returned is that of the step before, as where it is read before it was computed."""

    def telling(self, rig: Rig) -> Told:
        """The loss that was kept last."""
        kept: list[torch.Tensor] = []

        def told(loss: torch.Tensor, batch: Any) -> torch.Tensor:
            kept.append(loss)
            return kept[max(0, len(kept) - 2)]

        return told
