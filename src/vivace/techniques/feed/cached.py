"""Feeds that take samples from a cache: one whose rows never change, and one with a replacement policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from vivace.data.sample_table import ReplacedSamples, SampleTable
from vivace.training.feed import Collect, Place, SampleFeed, staged_epoch


class CachedFeed:
    """Batches cut from a table; samples that it does not have come from the feed that it was made of."""

    finishes_in_order = False

    def __init__(self, feed: SampleFeed, table: SampleTable) -> None:
        self.order = feed.order
        self.augment = feed.augment
        self.collate = feed.collate
        self.table = table
        self._feed = feed

    def epoch(self, number: int, skip: int = 0) -> Iterator[Any]:
        """The batches of one epoch, without the first `skip`."""
        return staged_epoch(self, number, skip)

    def begin(self, place: Place, indices: torch.Tensor) -> torch.Tensor:
        """Nothing to prepare: rows never change."""
        return indices

    def work(self, begun: torch.Tensor, collect: Collect) -> Any:
        """Copy and read."""
        return self.table.batch(begun) if self.table.is_whole else self.table.completed(begun, collect)

    def finish(self, worked: Any) -> Any:
        """It is the batch."""
        return worked

    def collect(self, indices: Sequence[int]) -> Any:
        """From the dataset."""
        return self._feed.collect(indices)

    def reads(self) -> bool:
        """Unless everything is in the table."""
        return not self.table.is_whole

    def steps(self) -> int:
        """Batches in an epoch."""
        return self.order.steps()


class ReplacedFeed:
    """Batches of samples that a policy holds or that are read. `make` makes an empty cache for a run that begins with
    an epoch; it is called again where a batch does not follow the one before, for which no policy was told the order.
    """

    finishes_in_order = True

    def __init__(self, feed: SampleFeed, make: Callable[[int], ReplacedSamples]) -> None:
        self.order = feed.order
        self.augment = feed.augment
        self.collate = feed.collate
        self.samples: ReplacedSamples | None = None
        self._feed = feed
        self._make = make
        self._next = (-1, -1)

    def epoch(self, number: int, skip: int = 0) -> Iterator[Any]:
        """The batches of one epoch, without the first `skip`."""
        return staged_epoch(self, number, skip)

    def begin(self, place: Place, indices: torch.Tensor) -> Any:
        """Ask the policy, and copy what is held."""
        if self.samples is None or place != self._next:
            self.samples = self._from(place)
        epoch, position = place
        is_last = position + 1 == self.order.steps()
        self._next = (epoch + 1, 0) if is_last else (epoch, position + 1)
        return self.samples, self.samples.begin(indices)

    def work(self, begun: Any, collect: Collect) -> Any:
        """Read what was not held."""
        samples, (indices, held, is_held) = begun
        fresh = None if bool(is_held.all()) else collect(indices[~is_held].tolist())
        return samples, indices, held, is_held, fresh

    def finish(self, worked: Any) -> Any:
        """Take in what was read."""
        samples, indices, held, is_held, fresh = worked
        batch = samples.finish(indices, held, is_held, fresh)
        return self.collect(indices.tolist()) if batch is None else batch

    def collect(self, indices: Sequence[int]) -> Any:
        """From the dataset."""
        return self._feed.collect(indices)

    def reads(self) -> bool:
        """It holds a part of the samples."""
        return True

    def steps(self) -> int:
        """Batches in an epoch."""
        return self.order.steps()

    def _from(self, place: Place) -> ReplacedSamples:
        """An empty cache, whose policy has seen the epoch's accesses before this place."""
        epoch, position = place
        samples = self._make(epoch)
        for batch in self.order.batches(epoch)[:position]:
            for number in batch.tolist():
                samples.policy.access(number)
        return samples
