"""Finds, by measuring, in how few parts a batch must be computed so that a step fits into so much memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils import _pytree as pytree

from vivace.core.errors import NotApplicable, UsageError
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.core.work import Work
from vivace.techniques.memory.gradient_accumulation import refuse_mixed
from vivace.training.checkpoint import Generators
from vivace.training.feed import is_iterator
from vivace.training.peak import peak_bytes
from vivace.training.rig import samples_in
from vivace.training.step import accumulate, split


@dataclasses.dataclass(frozen=True)
class FittingMicroBatch(Technique):
    """The largest part of a batch whose step takes at most `gigabytes` beside the weights, and as many parts as needed.

    Parts are halved until one forward and backward pass of the first batch fits, by what its tensors were seen to take
    at once; gradients are in that. It comes before compilers, which would compile each trial. The parts are weighted as
    in gradient-accumulation, which it takes the place of; a model with batch normalization is refused likewise. Raises
    NotApplicable where one sample does not fit, and where the data are an iterator that can be walked only once.

    Source: MosaicML Composer, automatic microbatching, https://docs.mosaicml.com/projects/composer, and its issue 2214
    (compilations of every trial), read in November 2026.

    >>> str(FittingMicroBatch(0.5))
    'fitting-micro-batch(gigabytes=0.5)'
    """

    gigabytes: float = 4.0

    stage = Stage.MEMORY
    family = Family.SYSTEM
    effect = Effect.ROUNDED
    needs = frozenset({Fact.TRAINING, Fact.WHOLE_BATCH})
    breaks = frozenset({Fact.WHOLE_BATCH})
    source = "https://docs.mosaicml.com/projects/composer; mosaicml/composer issue 2214"

    def __post_init__(self) -> None:
        if isinstance(self.gigabytes, bool) or not isinstance(self.gigabytes, int | float) or not self.gigabytes > 0:
            raise UsageError(f"fitting-micro-batch received gigabytes={self.gigabytes!r}; allowed is a number above 0")

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """None by itself: it saves memory, not time."""
        return iter(())

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig with its batches computed in as few parts as fit."""
        refuse_mixed(rig.model)
        batch = _first_batch(rig, job)
        parts, most = 1, int(samples_in(batch))
        while (needed := _step_bytes(rig, batch, parts)) > self.gigabytes * 1e9:
            if parts >= most:
                raise NotApplicable(f"one sample takes {needed / 1e9:.3g} GB; allowed are {self.gigabytes:g}")
            parts = min(2 * parts, most)
        if parts == 1:
            raise NotApplicable(f"the whole batch fits: {needed / 1e9:.3g} of {self.gigabytes:g} GB")
        return rig.replace(parts=parts)


def _first_batch(rig: Rig, job: Training) -> Any:
    if not job.has_samples and is_iterator(job.data):
        raise NotApplicable("the data are an iterator, whose first batch can be read only once")
    now = Generators.now()
    try:
        return next(iter(rig.feed.epoch(0)))
    finally:
        now.restore()


def _step_bytes(rig: Rig, batch: Any, parts: int) -> float:
    """What forward and backward passes of the two largest parts take, beside the weights: from the second on, gradients
    are there already. Nothing is updated."""
    chosen = split(batch, parts)[:2]
    devices = {leaf.device.type for leaf in pytree.tree_leaves(chosen) if torch.is_tensor(leaf)}
    kept = {name: value.clone() for name, value in rig.model.named_buffers()}
    now = Generators.now()
    try:
        if "cuda" in devices:
            return _on_cuda(rig, chosen)
        return float(peak_bytes(lambda: [accumulate(rig, part) for part in chosen]))
    finally:
        now.restore()
        for name, value in rig.model.named_buffers():
            value.copy_(kept[name])
        rig.optimizer.zero_grad(set_to_none=True)


def _on_cuda(rig: Rig, chosen: list[Any]) -> float:
    try:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        for part in chosen:
            accumulate(rig, part)
        return float(torch.cuda.max_memory_allocated() - before)
    except torch.cuda.OutOfMemoryError:
        return float("inf")
