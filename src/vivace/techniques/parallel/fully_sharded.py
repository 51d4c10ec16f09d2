"""Trains with a part of every parameter, its gradient and its optimizer's state on each process."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.core.work import Work
from vivace.distributed.batch_norm import share_batch_norms
from vivace.distributed.draws import Draws
from vivace.distributed.sharding import shard, shard_stage
from vivace.distributed.world import Axis, world_of
from vivace.techniques.parallel.data_parallel import check_ways
from vivace.techniques.parallel.spread import PartFeed, SpreadGradients, axes_drawn, weighted, with_new_optimizer
from vivace.techniques.parallel.staged import StagedGradients


@dataclasses.dataclass(frozen=True)
class FullySharded(Technique):
    """Parameters, gradients and optimizer state split over `ways` processes, in each of `copies` groups of them.

    PyTorch's FSDP2: a block's parameters are gathered before it computes and let go after, so that each process holds
    about 1 / `ways` of the model. Batches are divided as in data-parallel. The loss must use the model by calling it.
    Of a pipeline each stage is split, and gathered once for all micro-batches. Raises NotApplicable where one process
    trains.

    Source: Zhao et al., PyTorch FSDP, VLDB 2023 (arXiv:2304.11277); Rajbhandari et al., ZeRO, SC 2020.

    >>> str(FullySharded(4, copies=2))
    'fully-sharded(ways=4, copies=2)'
    """

    ways: int = 2
    copies: int = 1

    stage = Stage.PARALLEL
    order = 3
    family = Family.SYSTEM
    effect = Effect.ROUNDED
    needs = frozenset(
        {
            Fact.TRAINING, Fact.WHOLE_BATCH, Fact.UNSCALED_LOSS, Fact.ONE_COPY,
        }
    )  # fmt: skip
    breaks = frozenset({Fact.ONE_PROCESS, Fact.ONE_COPY, Fact.WHOLE_LAYERS})
    source = "Zhao et al., PyTorch FSDP, VLDB 2023, arXiv:2304.11277; Rajbhandari et al., SC 2020, arXiv:1910.02054"

    def __post_init__(self) -> None:
        check_ways("fully-sharded", self.ways)

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """None by itself: how many processes train is asked for."""
        return iter(())

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig of one of the processes."""
        world = world_of(rig)
        Axis("shard", self.ways).check(world)
        Axis("data", self.copies).check(world)
        is_mixed = world.layout.tensor > 1
        staged = rig.gradients
        if isinstance(staged, StagedGradients):
            count = shard_stage(staged.pipeline.stage, world)
            told = f"parameters of this stage are gathered in {count} groups"
            rig = with_new_optimizer(rig, job, is_mixed).replace(notes=(*rig.notes, told))
            return rig.replace(gradients=staged.of(rig))
        norms, draws = share_batch_norms(rig.model, world), Draws(rig.model, axes_drawn(job))
        blocks = shard(rig.model, world)
        told = f"parameters are gathered in {len(blocks) + 1} groups"
        rig = with_new_optimizer(rig, job, is_mixed).replace(notes=(*rig.notes, told))
        gradients = SpreadGradients(rig, world, weighted(rig, rig.forward), draws, norms)
        return rig.replace(feed=PartFeed(rig.feed, world), gradients=gradients)
