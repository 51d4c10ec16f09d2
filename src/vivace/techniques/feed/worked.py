"""DataLoaders with workers: what must hold for the same batches to be made without them, of samples that are held."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

from vivace.core.errors import NotApplicable
from vivace.training.examine import same
from vivace.training.feed import Order, SampleFeed
from vivace.training.feeding.purity import why_random

ROUNDS = 2
"""Worker processes that are asked for the same batch, each with other seeds."""


def check_workers(loader: DataLoader[Any], numbers: Sequence[int], comparable: Callable[[list[Any]], Any]) -> None:
    """Raise NotApplicable where workers may make another batch of these samples than this process does.

    A batch of them is collated here twice, and by two workers with seeds of their own, as the DataLoader starts them.
    So a dataset that changes samples at random, in its workers alone too, and a collate_fn that draws numbers, which
    workers draw from seeds of theirs, are left out. The generators of the training are left as they were.
    """
    data: Any = loader.dataset
    feed = SampleFeed(Order(len(data), 1), data, lambda samples: comparable([loader.collate_fn(samples)]))
    reason = why_random(feed, [list(numbers)])
    if reason is not None:
        raise NotApplicable(f"{reason} (a batch that its collate_fn makes, with num_workers={loader.num_workers})")
    here = feed.collect(list(numbers))
    for seed in range(ROUNDS):
        asked: Any = DataLoader(
            data, batch_sampler=[list(numbers)], collate_fn=loader.collate_fn, num_workers=1,
            multiprocessing_context=loader.multiprocessing_context, timeout=loader.timeout,
            generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip
        if not same(here, comparable(list(asked))):
            raise NotApplicable(
                "a worker process of the DataLoader makes another batch of the same samples than the training's own "
                "process: the dataset changes samples at random, or looks which worker it is in; do what is random in "
                "the job's `augment`, (batch) -> batch, which runs on every batch when it is used"
            )


class PersistentlyWorked:
    """Walks a DataLoader without workers as one whose workers stay draws from its generator: a seed for them in the
    first epoch alone, and the sampler's own numbers in every one. `given` is the one with workers, which may have been
    walked in this process."""

    def __init__(self, given: DataLoader[Any], held: DataLoader[Any]) -> None:
        self._given = given
        self._held = held
        self._is_walked = False

    def __len__(self) -> int:
        return len(self._held)

    def go_on_after_restart(self) -> None:
        """It was walked before, in a process that is gone."""
        self._is_walked = True

    def __iter__(self) -> Iterator[Any]:
        if not self._is_walked and self._given._iterator is None:
            self._is_walked = True
            return iter(self._held)
        self._is_walked = True
        generator = torch.default_generator if self._held.generator is None else self._held.generator
        before = generator.get_state()
        batches = iter(self._held)  # which draws the seed of workers
        generator.set_state(before)
        return batches
