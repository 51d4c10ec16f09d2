"""Trains copies of the model, each on its part of every batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from vivace.core.errors import UsageError
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.core.work import Work
from vivace.distributed.batch_norm import share_batch_norms
from vivace.distributed.draws import Draws
from vivace.distributed.replicas import WholeLoss, replicated
from vivace.distributed.world import Axis, world_of
from vivace.techniques.parallel.spread import PartFeed, SpreadGradients, weighted
from vivace.techniques.parallel.staged import StagedGradients


@dataclasses.dataclass(frozen=True)
class DataParallel(Technique):
    """`ways` copies of the model in processes of their own, by PyTorch's DistributedDataParallel.

    The batch stays the one of one process, in the same order: each copy computes its rows, weighted by their share of
    the batch's mean, and gradients are summed while the backward pass goes on. Dropout draws the masks of the whole
    batch, and batch normalization takes its statistics of it. Raises NotApplicable where one process trains.

    Source: Li et al., PyTorch Distributed, VLDB 2020 (arXiv:2006.15704).

    >>> str(DataParallel(4))
    'data-parallel(ways=4)'
    """

    ways: int = 2

    stage = Stage.PARALLEL
    order = 3
    family = Family.SYSTEM
    effect = Effect.ROUNDED
    needs = frozenset({Fact.TRAINING, Fact.WHOLE_BATCH, Fact.UNSCALED_LOSS, Fact.ONE_COPY, Fact.WHOLE_LAYERS})
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
            rig.gradients.replicate()
            return rig
        norms, draws = share_batch_norms(rig.model, world), Draws(rig.model)
        replica = replicated(WholeLoss(rig.model, rig.forward), world)
        gradients = SpreadGradients(rig, world, weighted(rig, replica), draws, norms)
        return rig.replace(feed=PartFeed(rig.feed, world), gradients=gradients)


def check_ways(name: str, ways: object) -> None:
    """Raise UsageError for a number of processes that is none."""
    if isinstance(ways, bool) or not isinstance(ways, int) or ways < 2:
        raise UsageError(f"{name} received ways={ways!r}; allowed is a whole number of 2 or more")
