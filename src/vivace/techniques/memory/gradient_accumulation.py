"""Computes a batch in parts, one after the other, so that only one part's activations are alive."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch

from vivace.core.errors import NotApplicable, UsageError
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.core.work import Work
from vivace.techniques.batch_norms import taking_statistics


@dataclasses.dataclass(frozen=True)
class GradientAccumulation(Technique):
    """The gradient of the whole batch, summed over `parts`, each weighted by what it holds of the batch's mean.

    The weight is the job's own (`weight`, such as tokens that are not padding), else the number of samples. The batch,
    and so the training, stays the same, but for batch normalization, whose statistics are then of a part: such models
    are refused. Raises NotApplicable for them.

    Source: Huang et al., GPipe, NeurIPS 2019 (arXiv:1811.06965); weighting: huggingface/transformers issue 34191.

    >>> str(GradientAccumulation(4))
    'gradient-accumulation(parts=4)'
    """

    parts: int = 2

    stage = Stage.MEMORY
    family = Family.SYSTEM
    effect = Effect.ROUNDED
    needs = frozenset({Fact.TRAINING, Fact.WHOLE_BATCH})
    breaks = frozenset({Fact.WHOLE_BATCH})
    source = "Huang et al., NeurIPS 2019, arXiv:1811.06965"

    def __post_init__(self) -> None:
        if isinstance(self.parts, bool) or not isinstance(self.parts, int) or self.parts < 2:
            raise UsageError(
                f"gradient-accumulation received parts={self.parts!r}; allowed is a whole number from 2 on"
            )

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """None by itself: it saves memory, not time."""
        return iter(())

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig with its batches computed in parts."""
        refuse_mixed(rig.model)
        return rig.replace(parts=self.parts)


def refuse_mixed(model: torch.nn.Module) -> None:
    """Raise NotApplicable for a model that normalizes over its batch: in parts it would over a part of it."""
    mixing = taking_statistics(model)
    if mixing:
        raise NotApplicable(f"{mixing[0]} normalizes over the batch, and would over a part of it")
