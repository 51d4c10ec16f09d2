"""Keeps every sample as it comes out of the dataset, decoded and preprocessed, in tensors that batches are cut from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils.data import default_collate

from vivace.core.errors import NotApplicable, UsageError
from vivace.core.facts import Fact
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.training.examine import same
from vivace.training.feed import Order, SampleFeed

CHUNK = 256
"""Samples that are collated at once while the cache is filled."""
PROBED = 8
"""Samples that are asked for twice, to find out whether the dataset changes them at random."""


@dataclasses.dataclass(frozen=True)
class SampleCache(Technique):
    """All samples read once, before the first epoch; then a batch is one indexed copy and no Python per sample.

    Batches hold the same values in the same order as before. `gigabytes` is the most that the cache may take. Random
    changes to samples would be frozen by it: they belong in the job's `augment`, which runs on every batch that leaves
    the cache. Raises NotApplicable where samples differ when they are asked for twice, where they cannot be stacked,
    and where they do not fit.

    Source: Mohan et al., Analyzing and Mitigating Data Stalls in DNN Training, VLDB 2021 (arXiv:2007.06775).

    >>> str(SampleCache(gigabytes=2.0))
    'sample-cache(gigabytes=2.0)'
    """

    gigabytes: float = 4.0

    stage = Stage.FEED
    family = Family.SYSTEM
    effect = Effect.EXACT
    needs = frozenset({Fact.TRAINING})
    source = "Mohan et al., VLDB 2021, arXiv:2007.06775"

    def __post_init__(self) -> None:
        if isinstance(self.gigabytes, bool) or not isinstance(self.gigabytes, int | float) or not self.gigabytes > 0:
            raise UsageError(f"sample-cache received gigabytes={self.gigabytes!r}; allowed is a number above 0")

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig with its feed read into memory."""
        feed = rig.feed
        if not isinstance(feed, SampleFeed):
            raise NotApplicable(
                "the data give whole batches, not samples by their number (give a Dataset and batch_size)"
            )
        if job.collate is not None:
            raise NotApplicable("the job collates samples itself, and what it makes of them cannot be cut from tensors")
        _refuse_random(feed)
        store = self._read(feed)
        return rig.replace(feed=CachedFeed(feed.order, store, feed.augment))

    def _read(self, feed: SampleFeed) -> Any:
        """One tensor for each leaf of a sample, with all samples along its first axis."""
        count, most = feed.order.samples, self.gigabytes * 1e9
        columns: list[torch.Tensor] = []
        layout = None
        for start in range(0, count, CHUNK):
            numbers = range(start, min(start + CHUNK, count))
            leaves, spec = pytree.tree_flatten(_collated(feed, numbers))
            if not columns:
                layout, columns = spec, self._room(leaves, count, len(numbers), most)
            if spec != layout or len(leaves) != len(columns):
                raise NotApplicable(f"sample {start} and those before it have different structures")
            for column, leaf in zip(columns, leaves, strict=True):
                if leaf.shape[1:] != column.shape[1:] or leaf.dtype != column.dtype:
                    raise NotApplicable(
                        f"samples have different shapes: {list(column.shape[1:])}, {list(leaf.shape[1:])}"
                    )
                column[numbers.start : numbers.stop] = leaf
        assert layout is not None
        return pytree.tree_unflatten(columns, layout)

    def _room(self, leaves: list[Any], count: int, chunk: int, most: float) -> list[torch.Tensor]:
        if not all(torch.is_tensor(leaf) and leaf.ndim and leaf.shape[0] == chunk for leaf in leaves):
            raise NotApplicable("samples hold something else than tensors and numbers")
        needed = sum(leaf.numel() * leaf.element_size() for leaf in leaves) / chunk * count
        if needed > most:
            raise NotApplicable(f"the samples take {needed / 1e9:.2g} GB; allowed are {self.gigabytes:g} (gigabytes)")
        return [torch.empty((count, *leaf.shape[1:]), dtype=leaf.dtype) for leaf in leaves]


class CachedFeed:
    """Batches cut from tensors that hold all samples."""

    def __init__(self, order: Order, store: Any, augment: Any = None) -> None:
        self.order = order
        self.store = store
        self.augment = augment

    def epoch(self, number: int, skip: int = 0) -> Iterator[Any]:
        """The batches of one epoch, without the first `skip`."""
        for indices in self.order.batches(number)[skip:]:
            batch = pytree.tree_map(lambda column, chosen=indices: column.index_select(0, chosen), self.store)
            yield batch if self.augment is None else self.augment(batch)

    def steps(self) -> int:
        """Batches in an epoch."""
        return self.order.steps()


def _refuse_random(feed: SampleFeed) -> None:
    numbers = range(min(PROBED, feed.order.samples))
    if not all(same(feed.data[number], feed.data[number]) for number in numbers):
        raise NotApplicable(
            "a sample differs when it is asked for twice: the dataset changes samples at random; do that in the job's "
            "`augment`, (batch) -> batch, which stays outside of the cache"
        )


def _collated(feed: SampleFeed, numbers: range) -> Any:
    try:
        return default_collate([feed.data[number] for number in numbers])
    except (RuntimeError, TypeError) as error:
        raise NotApplicable(f"samples {numbers.start} to {numbers.stop - 1} cannot be stacked: {error}") from error
