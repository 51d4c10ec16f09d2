"""Feeds: the batches of each epoch, in an order that only the seed and the epoch's number decide."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, default_collate

from vivace.core.errors import UsageError, told_of
from vivace.core.training.job import Training
from vivace.core.training.rig import Feed

_END = object()
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

    def whole(self, epoch: int) -> torch.Tensor:
        """The numbers of an epoch's samples, one after the other, in int64."""
        if not self.shuffle:
            return torch.arange(self.samples)
        return torch.randperm(self.samples, generator=torch.Generator().manual_seed(self.seed * STRIDE + epoch))

    def batches(self, epoch: int) -> tuple[torch.Tensor, ...]:
        """The same, batch by batch."""
        return torch.split(self.whole(epoch), self.batch_size)

    def numbers(self, epoch: int) -> list[int]:
        """The same as a list."""
        numbers: list[int] = self.whole(epoch).tolist()
        return numbers

    def steps(self) -> int:
        """Batches in an epoch; the last one may be smaller."""
        return -(-self.samples // self.batch_size)


Place = tuple[int, int]
"""Of a batch: the epoch's number, and the batch's in it."""
Collect = Callable[[Sequence[int]], Any]
"""(numbers of samples) -> their batch, without the job's `augment`."""


class StagedFeed(Protocol):
    """A feed whose batches are made in three stages, so that the middle one may run beside the training.

    `begin` and `finish` are called in the order of the batches and by one thread (but see `finishes_in_order`); `work`
    may run in any thread, for several batches at once, and gives the same whenever it runs. What is begun need not be
    finished.
    """

    order: Order
    augment: Callable[[Any], Any] | None
    finishes_in_order: bool
    """Whether `finish` must be; where it need not, any thread may call it."""

    def begin(self, place: Place, indices: torch.Tensor) -> Any:
        """What making the batch of this place, of these samples, needs to know."""
        ...

    def work(self, begun: Any, collect: Collect) -> Any:
        """The part that takes long; samples that are not at hand come from `collect`."""
        ...

    def finish(self, worked: Any) -> Any:
        """The batch."""
        ...

    def collect(self, indices: Sequence[int]) -> Any:
        """These samples from the dataset, collated."""
        ...

    def reads(self) -> bool:
        """Whether any batch still needs the dataset."""
        ...


class SampleFeed:
    """Batches collated from single samples, as a DataLoader without workers does."""

    finishes_in_order = False

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
        return staged_epoch(self, number, skip)

    def begin(self, place: Place, indices: torch.Tensor) -> torch.Tensor:
        """Nothing to prepare."""
        return indices

    def work(self, begun: torch.Tensor, collect: Collect) -> Any:
        """All samples are read."""
        return collect(begun.tolist())

    def finish(self, worked: Any) -> Any:
        """It is the batch."""
        return worked

    def reads(self) -> bool:
        """Every batch does."""
        return True

    def collect(self, indices: Sequence[int]) -> Any:
        """These samples, collated. Raises UsageError where the data end before their length."""
        try:
            return self.collate(read(self.data, indices))
        except IndexError as error:
            raise UsageError(
                f"the data say that they hold {self.order.samples} samples, and one of {min(indices)} to "
                f"{max(indices)} is not there ({error}); make len(data) tell how many there are"
            ) from error

    def steps(self) -> int:
        """Batches in an epoch."""
        return self.order.steps()


class DataFailed(UsageError):
    """The user's data raised something; where, and what."""


def watched(batches: Iterator[Any], epoch: int, first: int = 0) -> Iterator[Any]:
    """The batches of an epoch from number `first` on. Raises DataFailed for what the user's data raise."""
    for number in itertools.count(first):
        try:
            batch = next(batches, _END)
        except Exception as error:  # a dataset may raise anything
            raise DataFailed(f"the data fail at batch {number} of epoch {epoch}: {told_of(error)}") from error
        if batch is _END:
            return
        yield batch


def is_iterator(data: Any) -> bool:
    """Whether data end for good once they were walked. Of others `iter` is not asked for: a DataLoader's draws numbers,
    and starts its workers.

    >>> is_iterator(iter([1])), is_iterator([1])
    (True, False)
    """
    return hasattr(data, "__next__") and iter(data) is data


def no_batch(epoch: int) -> UsageError:
    """What is told of an epoch without any batch."""
    return UsageError(
        f"the data gave no batch in epoch {epoch}; give at least one in each: data that can be walked again, such as a "
        "list of batches, and with drop_last no larger batches than there are samples"
    )


def length_of(data: Any) -> int | None:
    """How long the data are; None where they do not say, as a DataLoader of an iterable does not though it has a
    length's method."""
    try:
        return len(data)
    except TypeError:
        return None


def read(data: Any, indices: Sequence[int]) -> list[Any]:
    """Samples of a dataset: all at once where it has `__getitems__`, as PyTorch's DataLoader reads it."""
    many = getattr(data, "__getitems__", None)
    return list(many(list(indices))) if many else [data[index] for index in indices]


def staged_epoch(feed: StagedFeed, number: int, skip: int) -> Iterator[Any]:
    """The batches of an epoch, each made when it is asked for."""
    for position, indices in enumerate(feed.order.batches(number)[skip:], skip):
        batch = feed.finish(feed.work(feed.begin((number, position), indices), feed.collect))
        yield batch if feed.augment is None else feed.augment(batch)


class BatchFeed:
    """The batches of an iterable, as they come."""

    def __init__(self, data: Any, augment: Callable[[Any], Any] | None = None) -> None:
        self.data = data
        self.augment = augment
        self._walked = 0

    def epoch(self, number: int, skip: int = 0) -> Iterator[Any]:
        """The batches of one epoch, without the first `skip`, which are walked at once. Raises UsageError where there
        are fewer, and for the second epoch of an iterator."""
        if self._walked and is_iterator(self.data):
            raise UsageError(
                "data is an iterator, which ends for good after one epoch; give a list of batches, or a Dataset with "
                "batch_size, which can be walked again"
            )
        self._walked += 1
        batches = self._begun(number)
        skipped = sum(1 for _ in itertools.islice(batches, skip))  # now, while the generators are the epoch's own
        if skipped < skip:
            raise UsageError(
                f"data gave {skipped} batches in epoch {number}, of which {skip} were trained on before the restart; "
                "give the same data as before"
            )
        return batches if self.augment is None else map(self.augment, batches)

    def go_on(self, number: int) -> None:
        """Know that the epochs before this one are over: a DataLoader whose workers stay draws a seed for them in the
        first epoch alone, and so must not in the first one after a restart."""
        is_of_torch = isinstance(self.data, DataLoader)
        if is_of_torch and self.data.num_workers and self.data.persistent_workers and self.data._iterator is None:
            self._begun(number)
        elif hasattr(self.data, "go_on_after_restart"):
            self.data.go_on_after_restart()

    def _begun(self, number: int) -> Iterator[Any]:
        try:
            return iter(self.data)
        except Exception as error:  # such as a DataLoader's workers, which cannot be sent the user's dataset
            raise DataFailed(f"the data cannot be walked in epoch {number}: {told_of(error)}") from error

    def steps(self) -> int | None:
        """Batches in an epoch, where the iterable has a length."""
        return length_of(self.data)
