"""Feeds: the batches of each epoch, in an order that only the seed and the epoch's number decide."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import Any

import torch
from torch.utils.data import default_collate

from vivace.core.errors import UsageError
from vivace.core.training.job import Training
from vivace.core.training.rig import Feed

STRIDE = 1_000_003
"""Keeps the orders of neighbouring seeds apart."""


def feed_of(job: Training) -> Feed:
    """What feeds a job as it was given."""
    if job.has_samples:
        assert job.batch_size is not None
        return SampleFeed(
            Order(len(job.data), job.batch_size, job.seed, job.shuffle), job.data, job.collate, job.augment
        )
    return BatchFeed(job.data, job.augment)


class Order:
    """Which samples make each batch of each epoch, every sample exactly once an epoch.

    >>> [batch.tolist() for batch in Order(5, 2, seed=0, shuffle=False).batches(0)]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, samples: int, batch_size: int, seed: int = 0, shuffle: bool = True) -> None:
        self.samples = samples
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle

    def batches(self, epoch: int) -> tuple[torch.Tensor, ...]:
        """The numbers of the samples of each batch, in int64."""
        numbers = torch.arange(self.samples)
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed * STRIDE + epoch)
            numbers = torch.randperm(self.samples, generator=generator)
        return torch.split(numbers, self.batch_size)

    def steps(self) -> int:
        """Batches in an epoch; the last one may be smaller."""
        return -(-self.samples // self.batch_size)


class SampleFeed:
    """Batches collated from single samples, as a DataLoader without workers does."""

    def __init__(
        self,
        order: Order,
        data: Any,
        collate: Callable[[list[Any]], Any] | None = None,
        augment: Callable[[Any], Any] | None = None,
    ) -> None:
        self.order = order
        self.data = data
        self.collate: Callable[[list[Any]], Any] = collate or default_collate
        self.augment = augment

    def epoch(self, number: int, skip: int = 0) -> Iterator[Any]:
        """The batches of one epoch, without the first `skip`."""
        for indices in self.order.batches(number)[skip:]:
            batch = self.batch(indices.tolist())
            yield batch if self.augment is None else self.augment(batch)

    def batch(self, indices: Sequence[int]) -> Any:
        """These samples, collated. Raises UsageError where the data end before their length."""
        try:
            return self.collate([self.data[index] for index in indices])
        except IndexError as error:
            raise UsageError(
                f"the data say that they hold {self.order.samples} samples, and one of {min(indices)} to "
                f"{max(indices)} is not there ({error}); make len(data) tell how many there are"
            ) from error

    def steps(self) -> int:
        """Batches in an epoch."""
        return self.order.steps()


class BatchFeed:
    """The batches of an iterable, as they come."""

    def __init__(self, data: Iterable[Any], augment: Callable[[Any], Any] | None = None) -> None:
        self.data = data
        self.augment = augment
        self._walked = 0

    def epoch(self, number: int, skip: int = 0) -> Iterator[Any]:
        """The batches of one epoch, without the first `skip`, which are walked at once. Raises UsageError where there
        are fewer, and for the second epoch of an iterator."""
        if iter(self.data) is self.data and self._walked:
            raise UsageError(
                "data is an iterator, which ends for good after one epoch; give a list of batches, or a Dataset with "
                "batch_size, which can be walked again"
            )
        self._walked += 1
        batches = iter(self.data)
        skipped = sum(1 for _ in itertools.islice(batches, skip))  # now, while the generators are the epoch's own
        if skipped < skip:
            raise UsageError(
                f"data gave {skipped} batches in epoch {number}, of which {skip} were trained on before the restart; "
                "give the same data as before"
            )
        return batches if self.augment is None else map(self.augment, batches)

    def steps(self) -> int | None:
        """Batches in an epoch, where the iterable has a length."""
        return len(self.data) if isinstance(self.data, Sized) else None
