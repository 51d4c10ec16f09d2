"""Trains copies of the model, each on its part of every batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from vivace.core.errors import NotApplicable, UsageError
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.core.work import Work
from vivace.distributed.batch_norm import share_batch_norms
from vivace.distributed.draws import Draws
from vivace.distributed.replicas import Replica
from vivace.distributed.world import Axis, world_of
from vivace.techniques.parallel.spread import PartFeed, SpreadGradients, axes_drawn, scaled, weighted
from vivace.techniques.parallel.staged import StagedGradients


@dataclasses.dataclass(frozen=True)
class DataParallel(Technique):
    """`ways` copies of the model in processes of their own, by PyTorch's DistributedDataParallel.

    The batch stays the one of one process, in the same order: each copy computes its rows, weighted by their share of
    the batch's mean, and gradients are summed while the backward pass goes on. Dropout draws the masks of the whole
    batch, and batch normalization takes its statistics of it. Where other processes hold parts of each copy, or a share
    is computed in parts, gradients are summed after the backward pass, all at once: DistributedDataParallel takes no
    DTensor, and sums after each part. Raises NotApplicable where one process trains, and for dropout in a share that is
    computed in parts.

    Source: Li et al., PyTorch Distributed, VLDB 2020 (arXiv:2006.15704).

    >>> str(DataParallel(4))
    'data-parallel(ways=4)'
    """

    ways: int = 2

    stage = Stage.PARALLEL
    order = 3
    family = Family.SYSTEM
    effect = Effect.ROUNDED
    needs = frozenset({Fact.TRAINING, Fact.UNSCALED_LOSS, Fact.ONE_COPY})
    breaks = frozenset({Fact.ONE_PROCESS, Fact.ONE_COPY})
    source = "Li et al., PyTorch Distributed, VLDB 2020, arXiv:2006.15704"

    def __post_init__(self) -> None:
        check_ways("data-parallel", self.ways)

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """None by itself: how many processes train is asked for."""
        return iter(())

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig of one of the copies."""
        world = world_of(rig)
        Axis("data", self.ways).check(world)
        if isinstance(rig.gradients, StagedGradients):
            return rig.replace(gradients=rig.gradients.of(rig, sums=True))
        if rig.parts > 1 and has_dropout(rig.model):
            raise NotApplicable("the model has dropout, whose masks would be drawn for parts of a process's share")
        norms, draws = share_batch_norms(rig.model, world), Draws(rig.model, axes_drawn(job))
        sums = rig.parts > 1 or world.layout.tensor > 1
        forward = rig.forward if sums else Replica(rig.model, rig.forward, world)
        gradients = SpreadGradients(rig, world, weighted(rig, forward), draws, norms, sums)

        def spread(passes: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
            if norms:
                raise NotApplicable("batch normalization takes its statistics of all processes in the midst of a pass")
            return dataclasses.replace(gradients, compute=scaled(rig, passes), sums=True)

        return rig.replace(
            feed=PartFeed(rig.feed, world), gradients=gradients, spread=spread if world.layout.tensor == 1 else None
        )


def has_dropout(model: nn.Module) -> bool:
    """Whether a model draws masks in its layers."""
    return any(isinstance(one, nn.modules.dropout._DropoutNd) and one.p > 0 for one in model.modules())


def check_ways(name: str, ways: object) -> None:
    """Raise UsageError for a number of processes that is none."""
    if isinstance(ways, bool) or not isinstance(ways, int) or ways < 2:
        raise UsageError(f"{name} received ways={ways!r}; allowed is a whole number of 2 or more")
