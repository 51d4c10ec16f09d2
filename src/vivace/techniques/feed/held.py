"""Samples held as the dataset gives them, where somebody else collates: the job's own function, or a DataLoader."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from vivace.core.errors import NotApplicable
from vivace.core.training.job import Training
from vivace.core.training.rig import Feed
from vivace.techniques.feed.worked import PersistentlyWorked, check_workers
from vivace.training.feed import BatchFeed, Order, SampleFeed, read
from vivace.training.feeding.purity import probes, why_random

SAMPLERS = (SequentialSampler, RandomSampler, SubsetRandomSampler, WeightedRandomSampler)
"""Which draw numbers of samples from PyTorch's generators and read no sample."""
VALUES = (bool, int, float, str, bytes, type(None), np.generic)
OBJECT_BYTES = 100
"""What a number, a text or a tensor takes beside its values, about."""


class HeldSamples:
    """A dataset whose samples were read once. Whoever asks gets a copy, so that what is done to it stays outside.

    >>> held = HeldSamples([torch.zeros(2), torch.ones(2)])
    >>> held[1].mul_(5), held[1]
    (tensor([5., 5.]), tensor([1., 1.]))
    """

    def __init__(self, data: Any, most_bytes: float = math.inf) -> None:
        self._samples, held = list[Any](), 0
        for number in range(len(data)):
            self._samples += read(data, [number])
            held += _bytes(self._samples[-1])
            if held > most_bytes:
                raise NotApplicable(_too_large(held / (number + 1) * len(data), most_bytes))

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, number: int) -> Any:
        return pytree.tree_map(_copied, self._samples[number])


def collates_itself(job: Training, feed: Feed) -> bool:
    """Whether batches of a feed as given are made of single samples by the job's own function or a DataLoader."""
    return (type(feed) is SampleFeed and job.collate is not None) or (
        type(feed) is BatchFeed and isinstance(job.data, DataLoader)
    )


def held_feed(job: Training, feed: Any, most_bytes: float) -> Feed:
    """The same batches in the same order, of samples that are read once, now. Raises NotApplicable where that would not
    give the same, or where they take more than `most_bytes`."""
    loader: Any = job.data if isinstance(job.data, DataLoader) else None
    data = job.data if loader is None else loader.dataset
    if loader is not None:
        _check_loader(loader)
    numbers = probes(len(data))
    reason = why_random(SampleFeed(Order(len(data), 1), data, _comparable), [[number] for number in numbers])
    if reason is not None:
        raise NotApplicable(reason)
    if loader is not None and loader.num_workers:
        check_workers(loader, numbers, _comparable)
    seen = [_bytes(read(data, [number])[0]) for number in numbers]
    expected = sum(seen) / len(seen) * len(data)
    if expected > most_bytes:
        raise NotApplicable(_too_large(expected, most_bytes))
    held = HeldSamples(data, most_bytes)
    if loader is None:
        return SampleFeed(feed.order, held, job.collate, feed.augment)
    again: Any = DataLoader(
        held, batch_sampler=loader.batch_sampler, collate_fn=loader.collate_fn, generator=loader.generator,  # type: ignore[arg-type]
        pin_memory=loader.pin_memory,
    )  # fmt: skip
    if loader.num_workers and loader.persistent_workers:
        return BatchFeed(PersistentlyWorked(loader, again), feed.augment)
    return BatchFeed(again, feed.augment)


def _check_loader(loader: Any) -> None:
    """Raise NotApplicable where a DataLoader may make batches in a way that is not known here."""
    sampler = getattr(loader.batch_sampler, "sampler", None)
    told = {
        f"it is a {type(loader).__name__}, whose iteration may be its own": type(loader) is not DataLoader,
        "it is of an IterableDataset, whose samples have no numbers": isinstance(loader.dataset, IterableDataset),
        "it has a worker_init_fn, which may change what its workers read": loader.worker_init_fn is not None,
        "its workers give batches as they come (in_order=False)": loader.num_workers > 0 and not loader.in_order,
        "it makes no batches (batch_size=None)": loader.batch_sampler is None,
        f"its batch_sampler is a {type(loader.batch_sampler).__name__}": type(loader.batch_sampler) is not BatchSampler,
        f"its sampler is a {type(sampler).__name__}": type(sampler) not in SAMPLERS,
    }
    reason = next((why for why, holds in told.items() if holds), None)
    if reason is not None:
        raise NotApplicable(
            f"the DataLoader cannot be followed: {reason}; give the Dataset itself, with batch_size and collate"
        )


def _comparable(samples: list[Any]) -> Any:
    """Samples with arrays as tensors, which can be compared to the bit. Raises NotApplicable for what holds others."""

    def told(leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biufc":
            return torch.from_numpy(leaf.copy())
        if isinstance(leaf, (torch.Tensor, *VALUES)):
            return leaf
        raise NotApplicable(
            f"a sample holds a {type(leaf).__name__}, whose copies may share what is changed later; let the dataset "
            "give tensors, arrays, numbers and texts"
        )

    return pytree.tree_map(told, samples)


def _too_large(size: float, most_bytes: float) -> str:
    return (
        f"the samples take about {size / 1e9:.2g} GB, and {most_bytes / 1e9:.2g} GB may be used (gigabytes); samples "
        "that are collated by the job itself are held whole or not at all"
    )


def _bytes(sample: Any) -> int:
    return sum(int(getattr(leaf, "nbytes", 0)) + OBJECT_BYTES for leaf in pytree.tree_leaves(sample))


def _copied(leaf: Any) -> Any:
    if torch.is_tensor(leaf):
        return leaf.clone()
    return leaf.copy() if isinstance(leaf, np.ndarray) else leaf
