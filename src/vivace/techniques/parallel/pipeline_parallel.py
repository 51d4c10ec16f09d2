"""Trains a model in stages, one on each process, through which the parts of a batch pass."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from vivace.core.errors import NotApplicable, UsageError
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.core.work import Work
from vivace.distributed.layout import SCHEDULES
from vivace.distributed.pipelining.draws_of_stages import StageDraws
from vivace.distributed.pipelining.pipeline import Pipeline, inputs_of
from vivace.distributed.pipelining.stages import balanced, chain_of, tied_between, why_no_chain
from vivace.distributed.world import Axis, World, world_of
from vivace.measure.clock import SystemClock
from vivace.techniques.batch_norms import taking_statistics
from vivace.techniques.parallel.data_parallel import check_ways
from vivace.techniques.parallel.spread import PartFeed, copied, example_of
from vivace.techniques.parallel.staged import StagedGradients
from vivace.training.rig import seeded

TIMED = 3
"""How often each module is timed; the quickest counts."""
DRAWN_ROWS = 3
"""Samples that a model is given to learn what it draws: few other axes are as long, or a multiple of that."""


@dataclasses.dataclass(frozen=True)
class PipelineParallel(Technique):
    """`ways` stages of about the same measured time; a batch passes through them in `micro` parts.

    The model must end in a chain of modules, each given the one tensor that the one before it gave, the last of which
    gives what the model does; before the first it may compute as it likes, which is the first stage's. Where `micro`
    does not divide a batch, the largest smaller number that does is taken. Masks are drawn as in one process. Gradients
    and optimizer state are on their stage's process alone; the weights of all stages are on each. Raises NotApplicable
    for a model that is no chain, and for batch normalization that is not frozen, which would see parts of a batch.

    Source: Huang et al., GPipe, NeurIPS 2019 (arXiv:1811.06965); 1F1B: Narayanan et al., PipeDream, SOSP 2019
    (arXiv:1806.03377).

    >>> str(PipelineParallel(2, schedule="gpipe"))
    'pipeline-parallel(schedule=gpipe)'
    """

    ways: int = 2
    micro: int = 4
    schedule: str = "1f1b"

    stage = Stage.PARALLEL
    order = 1
    family = Family.SYSTEM
    effect = Effect.ROUNDED
    needs = frozenset(
        {Fact.TRAINING, Fact.WHOLE_BATCH, Fact.UNSCALED_LOSS, Fact.ONE_COPY, Fact.WHOLE_CHAIN, Fact.WHOLE_LAYERS}
    )
    breaks = frozenset({Fact.ONE_PROCESS, Fact.WHOLE_CHAIN})
    source = "Huang et al., NeurIPS 2019, arXiv:1811.06965; Narayanan et al., SOSP 2019, arXiv:1806.03377"

    def __post_init__(self) -> None:
        check_ways("pipeline-parallel", self.ways)
        if self.schedule not in SCHEDULES:
            raise UsageError(f"pipeline-parallel received schedule={self.schedule!r}; allowed are "
                             f"{', '.join(SCHEDULES)}")  # fmt: skip

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """None by itself: how many processes train is asked for."""
        return iter(())

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig of one stage."""
        world = world_of(rig)
        Axis("pipeline", self.ways).check(world)
        given, chain = self.chain(rig, job)
        modules = [module for _, module in chain]
        with seeded(job.seed):
            draws = StageDraws([copied(module) for module in modules], given[:DRAWN_ROWS])
            rows = max(1, (job.batch_size or len(given)) // (world.layout.copies * self.micro))
            costs = _agreed(costs_of([copied(module) for module in modules], given, rows), world)
        ends = [*balanced(costs, self.ways), len(chain)]
        stages = [draws.stage(modules[a:b], a) for a, b in itertools.pairwise(ends)]
        tied = tied_between(rig.model, stages)
        if tied and world.layout.processes > self.ways * world.layout.data:
            raise NotApplicable(
                f"{next(iter(tied))} are one parameter, which two stages would hold; that works beside data "
                "alone: leave shard and tensor out, or give each a parameter of its own"
            )
        world.owned = _owned(rig.model, stages, world.place["pipeline"])
        mine = stages[world.place["pipeline"]]
        pipeline = Pipeline(world, rig.model, mine, draws, job.loss, self.micro, self.schedule)
        begins = ", ".join(chain[start][0] or "the model" for start in ends[:-1])
        takes = ", ".join(f"{sum(costs[a:b]) * 1e3:.2g}" for a, b in itertools.pairwise(ends))
        told = f"stages begin with {begins}; their modules were measured to take {takes} ms for {rows} samples"
        gradients = StagedGradients(rig, world, pipeline, tied=tied)
        return rig.replace(feed=PartFeed(rig.feed, world), gradients=gradients, notes=(*rig.notes, told))

    def chain(self, rig: Rig, job: Training) -> tuple[torch.Tensor, list[tuple[str, nn.Module]]]:
        """What a small batch gives to a rig's model, and the modules that this is a chain of. Raises NotApplicable
        where they do not make so many stages, and UsageError for a loss that uses the model in another way."""
        refuse(rig.model)
        batch = example_of(job)
        with seeded(job.seed):
            given = inputs_of(rig.model, job.loss, batch)
            found = chain_of(rig.model, lambda: rig.model(given))
        if len(found) < self.ways:
            told = f"the model is a chain of {len(found)} modules, which cannot make {self.ways} stages"
            raise NotApplicable(f"{told}: {why_no_chain(rig.model, lambda: rig.model(given))}")
        return given, found


def refuse(model: nn.Module) -> None:
    """Raise NotApplicable for a model whose parts would not be computed as in one process."""
    for name in taking_statistics(model):
        raise NotApplicable(
            f"{name} normalizes over the batch, and would over a part of it; take another normalization, such as "
            "nn.GroupNorm, or another layout, or freeze it: a model whose train() puts it in evaluation mode"
        )


def costs_of(chain: Sequence[nn.Module], given: torch.Tensor, rows: int) -> list[float]:
    """Seconds of the forward and backward pass of each module of a chain, MEASURED on so many rows, those of these
    inputs again and again: fewer would be bound by the reading of weights where a micro-batch is not."""
    clock, costs = SystemClock(), []
    given = given[torch.arange(rows, device=given.device) % len(given)]
    for module in chain:
        seconds = []
        for _ in range(TIMED):
            began = clock.now()
            x = given.detach().requires_grad_(given.is_floating_point())
            gave = module(x)
            if gave.requires_grad:
                gave.sum().backward()
            if given.is_cuda:
                torch.cuda.synchronize()  # else the launching of its kernels would be timed
            seconds.append(clock.now() - began)
        costs.append(min(seconds))
        given = gave.detach()
    return costs


def _agreed(costs: list[float], world: World) -> list[float]:
    """The first rank's, for all."""
    told: list[Any] = [costs]
    dist.broadcast_object_list(told)
    found: list[float] = told[0]
    return found


def _owned(model: nn.Module, stages: Sequence[nn.Module], place: int) -> frozenset[str]:
    """Names of the tensors of a stage; of the first one also those that no stage has."""
    mine = {id(tensor) for tensor in _tensors(stages[place])}
    others = {id(tensor) for stage in stages for tensor in _tensors(stage)} - mine
    held = {name: id(tensor) for name, tensor in model.state_dict(keep_vars=True).items()}
    return frozenset(name for name, one in held.items() if one in mine or (place == 0 and one not in others))


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()
