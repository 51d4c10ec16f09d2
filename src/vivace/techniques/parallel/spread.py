"""What every way of training on several processes shares: whose samples are whose, and how a step adds up."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from vivace.core.errors import NotApplicable
from vivace.core.training.job import Training
from vivace.core.training.rig import Feed, Rig
from vivace.distributed.batch_norm import WholeBatchNorm
from vivace.distributed.draws import Axes, DrawnShapes, Draws, axes_between
from vivace.distributed.parts import Share
from vivace.distributed.pipelining.pipeline import rows_of
from vivace.distributed.replicas import sum_gradients
from vivace.distributed.world import World
from vivace.training.feed import SampleFeed, feed_of, is_iterator
from vivace.training.rig import samples_in, seeded
from vivace.training.step import accumulate

EXAMPLE_ROWS = 4
"""Samples that a model is looked at with: enough for every micro-batch to have some."""


class PartFeed:
    """A feed of which each rank takes its rows of every batch, in the order of one process.

    Single samples are read by the rank that needs them alone. What changes batches at random (`augment`), batches of an
    iterable, and those that the job collates itself, such as by padding to the longest sample, are made whole by every
    rank, so that random numbers and shapes are those of one process.
    """

    def __init__(self, feed: Feed, world: World) -> None:
        self.feed = feed
        self._world = world

    def epoch(self, number: int, skip: int = 0) -> Iterator[Any]:
        """This rank's shares of the batches of one epoch, without the first `skip`."""
        feed = self.feed
        if type(feed) is not SampleFeed or feed.augment is not None or feed.collate is not default_collate:
            return self._watched(map(self._world.cut, feed.epoch(number, skip)))
        return self._watched(self._read(feed, number, skip))

    def _watched(self, shares: Iterator[Share]) -> Iterator[Share]:
        while True:
            with self._world.watch.during("the reading of a batch"):
                share = next(shares, None)
            if share is None:
                return
            yield share

    def _read(self, feed: SampleFeed, number: int, skip: int) -> Iterator[Share]:
        for indices in feed.order.batches(number)[skip:]:
            part = self._world.part(len(indices))
            mine = indices[part.start : part.start + part.rows]
            yield Share(feed.collect(mine.tolist()), part)

    def steps(self) -> int | None:
        """Batches in an epoch, the same number as in one process."""
        return self.feed.steps()


@dataclasses.dataclass
class SpreadGradients:
    """Sets the gradients of a whole batch, of which each rank computes its share; returns the whole batch's loss.

    `compute` goes forward and backward from a share's batch with its weight in the whole batch's mean. `sums` says that
    it leaves the gradients of the share, which are summed afterwards, all at once.
    """

    rig: Rig
    world: World
    compute: Callable[[Any, float], Tensor]
    draws: Draws
    norms: list[WholeBatchNorm]
    sums: bool = False

    def __call__(self, batch: Any) -> Tensor:
        share = self.world.cut(batch)
        self.rig.optimizer.zero_grad(set_to_none=True)
        for norm in self.norms:
            norm.part = share.part
        weight = weight_of(self.rig, self.world, share)
        with self.world.watch.during("the forward and backward pass"), self.draws.of(share.part):
            loss = self.compute(share.batch, weight)
        if self.sums:
            sum_gradients(self.rig.model, self.world)
        return self.world.sum_over_batch(loss.clone(), "losses")


def weight_of(rig: Rig, world: World, share: Share) -> float:
    """What of the whole batch's mean a share holds: by its rows, or by the job's own `weight` of all shares."""
    if rig.weight is samples_in:
        return share.part.share
    own = rig.weight(share.batch) if share.part.counts else 0.0
    whole = whole_weight(own, world)
    return own / whole if whole else share.part.share  # a batch of nothing: as one process makes of it what it will


def whole_weight(own: float, world: World) -> float:
    """The weight of a whole batch, of which this rank holds `own`."""
    found = torch.tensor([own], dtype=torch.float64, device=world.device)
    return float(world.sum_over_batch(found, "weights"))


def weighted(rig: Rig, forward: Callable[[Any], Tensor]) -> Callable[[Any, float], Tensor]:
    """Forward and backward of a batch whose loss counts with a weight."""

    def compute(batch: Any, weight: float) -> Tensor:
        return accumulate(rig.replace(forward=forward, gradients=None), batch, weight)

    return compute


def scaled(rig: Rig, passes: Callable[[Any], Tensor]) -> Callable[[Any, float], Tensor]:
    """Passes that set the gradients of a batch, counted with a weight afterwards."""

    def compute(batch: Any, weight: float) -> Tensor:
        loss = passes(batch)
        gradients = [one.grad for one in rig.model.parameters() if one.grad is not None]
        with torch.no_grad():
            if not weight:  # the mean over nothing is NaN, and times 0 it still is
                torch._foreach_zero_(gradients)
                return torch.zeros_like(loss)
            torch._foreach_mul_(gradients, weight)
        return loss * weight

    return compute


def with_new_optimizer(rig: Rig, job: Training, is_mixed: bool) -> Rig:
    """The rig with its optimizer and schedule made again, of parameters that others have taken the place of. Kernels
    that were chosen for it stay, unless some parameters are split and others are not (`is_mixed`), which no kernel for
    lists takes.

    Raises NotApplicable where something took the place of the optimizer's step, which is made again.
    """
    if rig.update != rig.optimizer.step and not getattr(rig.update, "repeats_step", False):
        raise NotApplicable(
            "something took the place of the optimizer's step, which is made again for parts of tensors"
        )
    optimizer = job.optimizer(rig.model.parameters())
    if not is_mixed:
        for group, before in zip(optimizer.param_groups, rig.optimizer.param_groups, strict=True):
            group |= {name: before[name] for name in ("fused", "foreach") if name in before}
    elif any(parameter.device.type == "cuda" for parameter in rig.model.parameters()):
        for group in optimizer.param_groups:
            group["foreach"] = False
    schedule = job.schedule(optimizer) if job.schedule is not None else None
    return rig.replace(optimizer=optimizer, schedule=schedule, update=optimizer.step)


def example_of(job: Training) -> Any:
    """A small batch of the job, the same on every rank. Raises NotApplicable where the data can be walked only once."""
    with seeded(job.seed):
        feed = feed_of(job)  # as given: the rig's may be cached, or divided among processes already
        if isinstance(feed, SampleFeed):
            batch = feed.collect(feed.order.numbers(0)[:EXAMPLE_ROWS])
            return batch if feed.augment is None else feed.augment(batch)
        if is_iterator(job.data):
            raise NotApplicable("the data are an iterator, so that no example can be taken; give a list or a Dataset")
        return next(iter(job.data))


def axes_drawn(job: Training) -> Axes:
    """Which axis of what a job's step draws is the batch's, learned from a batch and one that is shorter; nothing where
    the job takes no such batches."""
    shapes = []
    try:
        batch = example_of(job)
        count = int(samples_in(batch))
        for rows in (count, count - 1):
            with seeded(job.seed), torch.no_grad():
                model = job.model().train()
                with DrawnShapes() as drawn:
                    job.loss(model, rows_of(batch, 0, rows))
            shapes.append(drawn.found)
    except Exception:  # noqa: BLE001  the user's loss may raise anything when it is given a few samples
        return {}
    return axes_between(*shapes)


def looked_at(job: Training, model: nn.Module, batch: Any) -> Tensor:
    """The loss of a copy of a model, which is left as it is, as are the generators."""
    with seeded(job.seed):
        found: Tensor = job.loss(model, batch)
        return found


def copied(model: nn.Module) -> nn.Module:
    """A copy of a model, to be looked at."""
    return copy.deepcopy(model)
