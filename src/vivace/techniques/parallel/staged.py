"""The gradients of a model that is cut into stages: what a pipeline's step sets on its rank."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vivace.core.training.rig import Rig
from vivace.distributed.pipelining.pipeline import Pipeline
from vivace.distributed.replicas import sum_gradients
from vivace.distributed.world import World
from vivace.techniques.parallel.spread import whole_weight
from vivace.training.rig import samples_in
from vivace.training.step import around


@dataclasses.dataclass
class StagedGradients:
    """Sets the gradients of this rank's stage; returns the loss of the whole batch."""

    rig: Rig
    world: World
    pipeline: Pipeline
    sums: bool = False
    """Whether gradients are summed over the copies of the pipeline after each batch: under DistributedDataParallel
    PyTorch's stages sum those of the last micro-batch alone."""
    tied: Mapping[str, nn.Parameter] = dataclasses.field(default_factory=dict)
    """Parameters that several stages hold, by their names."""

    def __call__(self, batch: Any) -> Tensor:
        share = self.world.cut(batch)
        self.rig.optimizer.zero_grad(set_to_none=True)
        counts, weight = 1.0 if share.part.counts else 0.0, self.rig.weight
        whole = 0.0 if weight is samples_in else whole_weight(counts * weight(share.batch), self.world)
        if not whole:  # also a batch of nothing: as one process makes of it what it will
            weight, whole = samples_in, float(share.part.whole)
        with around(self.rig.around):
            loss = self.pipeline.step(share.batch, share.part, lambda part: counts * weight(part) / whole)
        if self.sums:
            sum_gradients(self.pipeline.stage, self.world)
        self.pipeline.sum_tied(self.tied)
        return self.world.sum_over_batch(loss.clone(), "losses")

    def of(self, rig: Rig, sums: bool = False) -> StagedGradients:
        """The same of a rig whose layers, and so its optimizer, were changed."""
        return dataclasses.replace(self, rig=rig, sums=sums or self.sums)
