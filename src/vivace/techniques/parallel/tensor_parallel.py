"""Trains with pairs of linear layers of which each process computes a part."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.core.work import Work
from vivace.distributed.draws import Draws
from vivace.distributed.tensor_plan import Pair, linear_pairs, split_pairs
from vivace.distributed.world import Axis, world_of
from vivace.techniques.parallel.data_parallel import check_ways
from vivace.techniques.parallel.spread import (
    PartFeed,
    SpreadGradients,
    axes_drawn,
    copied,
    example_of,
    looked_at,
    weighted,
    with_new_optimizer,
)
from vivace.techniques.parallel.staged import StagedGradients


@dataclasses.dataclass(frozen=True)
class TensorParallel(Technique):
    """Each of `ways` processes holds a part of the columns of one linear layer and of the rows of the next.

    Pairs are found by following what the loss is computed from: between the two may be element-wise operations alone,
    and gates (a product of two such branches). One sum over the processes follows each pair, forward and backward, by
    PyTorch's DTensor. All processes compute the same samples. In a pipeline the pairs of every stage are split, and
    one that lies in two stages has its parts passed on as they are. Raises NotApplicable for a model without such
    pairs, and where their widths do not divide.

    Source: Shoeybi et al., Megatron-LM, 2019 (arXiv:1909.08053), section 3.

    >>> str(TensorParallel(2))
    'tensor-parallel'
    """

    ways: int = 2

    stage = Stage.PARALLEL
    order = 2
    family = Family.SYSTEM
    effect = Effect.ROUNDED
    needs = frozenset(
        {
            Fact.TRAINING, Fact.WHOLE_BATCH, Fact.UNSCALED_LOSS, Fact.ONE_COPY, Fact.PLAIN_OPTIMIZER,
            Fact.WHOLE_LAYERS,
        }
    )  # fmt: skip
    breaks = frozenset({Fact.ONE_PROCESS, Fact.WHOLE_LAYERS})
    source = "Shoeybi et al., Megatron-LM, 2019, arXiv:1909.08053"

    def __post_init__(self) -> None:
        check_ways("tensor-parallel", self.ways)

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """None by itself: how many processes train is asked for."""
        return iter(())

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig of one of the processes."""
        world = world_of(rig)
        Axis("tensor", self.ways).check(world)
        pairs = self.pairs(rig, job)
        split_pairs(rig.model, pairs, world)
        told = f"split over {self.ways} processes: {'; '.join(map(str, pairs))}"
        rig = with_new_optimizer(rig, job, is_mixed=True).replace(notes=(*rig.notes, told))
        if isinstance(rig.gradients, StagedGradients):
            return rig.replace(gradients=rig.gradients.of(rig))
        gradients = SpreadGradients(rig, world, weighted(rig, rig.forward), Draws(rig.model, axes_drawn(job)), [])
        return rig.replace(feed=PartFeed(rig.feed, world), gradients=gradients)

    def pairs(self, rig: Rig, job: Training) -> list[Pair]:
        """The pairs of a rig's model that can be split. Raises NotApplicable where there is none."""
        batch = example_of(job)
        return self.dividing(linear_pairs(copied(rig.model), lambda model: looked_at(job, model, batch)))

    def dividing(self, pairs: list[Pair]) -> list[Pair]:
        """The pairs that can be split. Raises NotApplicable where there is none."""
        found = [pair for pair in pairs if pair.width % self.ways == 0]
        if found:
            return found
        if pairs:
            widths = ", ".join(str(width) for width in sorted({pair.width for pair in pairs}))
            raise NotApplicable(f"{self.ways} processes do not divide the widths of its linear pairs: {widths}")
        raise NotApplicable("no two linear layers follow each other with nothing but element-wise operations between")
