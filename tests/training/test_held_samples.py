"""Samples held for whoever collates them: the same batches to the bit, or a reason why not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    Sampler,
    SequentialSampler,
    WeightedRandomSampler,
    get_worker_info,
)

import vivace as vv
from vivace.core.errors import NotApplicable
from vivace.core.plan import Plan
from vivace.core.training.job import Training
from vivace.techniques.feed.sample_cache import SampleCache
from vivace.testing.tiny_training import Points, job
from vivace.training.examine import same
from vivace.training.rig import assemble, seed_everything
from vivace.training.service import equip


class Words(Points):
    """Sequences of several lengths, as arrays, which count how often they are read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        points, label = super().__getitem__(index)
        return {"x": points.numpy()[: 6 + index % 7].copy(), "y": label}


def padded(samples: list[Any]) -> Any:
    """Pads to 12, and writes into what it is given."""
    rows = torch.zeros(len(samples), 12)
    for row, sample in zip(rows, samples, strict=True):
        row[: len(sample["x"])] = torch.from_numpy(sample["x"])
        sample["x"] *= 0
    return rows, torch.tensor([sample["y"] for sample in samples])


def noisy(samples: list[Any]) -> Any:
    rows, labels = padded(samples)
    return rows + torch.randn_like(rows), labels


def epochs(work: Training, plan: Plan) -> list[Any]:
    feed = equip(assemble(work), work, plan).feed
    seed_everything(5)
    return [[*feed.epoch(number)] for number in range(2)] + [torch.rand(1)]


def loading(**settings: Any) -> Training:
    return job(data=DataLoader(Words(), **{"batch_size": 16, "collate_fn": padded, **settings}), batch_size=None)


@pytest.mark.parametrize(
    "work",
    [
        job(data=Words(), collate=padded),
        job(data=Words(), collate=noisy),
        loading(shuffle=True),
        loading(shuffle=True, generator=torch.Generator().manual_seed(3), drop_last=True, collate_fn=noisy),
        loading(sampler=WeightedRandomSampler(torch.rand(103).tolist(), 50)),
    ],
    ids=["collate", "noisy", "loader", "own-generator", "weighted"],
)
def test_batches_of_held_samples_are_the_same_to_the_bit_and_nothing_is_read_again(work: Training) -> None:
    data: Any = getattr(work.data, "dataset", work.data)
    generator = getattr(work.data, "generator", None)
    before = None if generator is None else generator.get_state()
    plain = epochs(work, Plan())
    if generator is not None:
        generator.set_state(before)
    feed = equip(assemble(work), work, Plan((SampleCache(),))).feed
    reads = data.reads
    seed_everything(5)
    held = [[*feed.epoch(number)] for number in range(2)] + [torch.rand(1)]

    assert same(plain, held) and data.reads == reads


class Growing(Words):
    """Has large samples where nobody looks for their size."""

    def __getitem__(self, index: int) -> Any:
        return {**super().__getitem__(index), "x": np.zeros(10**6 if index in (40, 50) else 12, np.float32)}


def test_samples_that_turn_out_larger_than_a_cache_may_be_are_let_go() -> None:
    work = job(data=Growing(), collate=lambda samples: torch.zeros(len(samples), 12))
    with pytest.raises(NotApplicable, match="held whole or not at all"):
        equip(assemble(work), work, Plan((SampleCache(gigabytes=0.006),)))


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([{"x": np.zeros(12, np.float32), "y": 0}] * 16)


class Reversed(Sampler[int]):
    def __iter__(self) -> Any:
        return iter(range(102, -1, -1))


class Own(BatchSampler):
    pass


class Random(Words):
    def __getitem__(self, index: int) -> Any:
        return {**super().__getitem__(index), "x": np.random.rand(12).astype(np.float32)}


class Flipped(Words):
    """Augments at random in worker processes alone, as its own evaluation does not."""

    def __getitem__(self, index: int) -> Any:
        found = super().__getitem__(index)
        is_flipped = get_worker_info() is not None and torch.rand(()) < 0.5
        return {**found, "x": found["x"][::-1].copy()} if is_flipped else found


def of_workers(data: Any) -> Training:
    return job(data=DataLoader(data, 16, collate_fn=padded, num_workers=1), batch_size=None)


@pytest.mark.parametrize(
    ("work", "technique", "told"),
    [
        (loading(worker_init_fn=print), SampleCache(), "it has a worker_init_fn"),
        (job(data=DataLoader(Stream(), 4), batch_size=None), SampleCache(), "it is of an IterableDataset"),
        (loading(sampler=Reversed()), SampleCache(), "its sampler is a Reversed"),
        (
            job(data=DataLoader(Words(), batch_sampler=Own(SequentialSampler(Words()), 4, False)), batch_size=None),
            SampleCache(), "its batch_sampler is a Own; give the Dataset itself",
        ),
        (loading(num_workers=1, in_order=False), SampleCache(), "its workers give batches as they come"),
        (loading(num_workers=1, collate_fn=noisy), SampleCache(), "with num_workers=1"),
        (of_workers(Flipped()), SampleCache(), "a worker process of the DataLoader makes another batch"),
        (of_workers(Random()), SampleCache(), "differs when it is asked for twice"),
        (job(data=Random(), collate=padded), SampleCache(), "differs when it is asked for twice"),
        (job(data=Words(), collate=padded), SampleCache(on="disk"), "held in memory alone"),
        (job(data=Words(), collate=padded), SampleCache(gigabytes=1e-6), "held whole or not at all"),
    ],
    ids=["init", "iterable", "sampler", "batch-sampler", "as-they-come", "collate-draws", "augmented-in-workers",
         "augmented", "random", "disk", "large"],
)  # fmt: skip
def test_what_cannot_be_followed_is_refused_with_its_reason(work: Training, technique: SampleCache, told: str) -> None:
    with pytest.raises(NotApplicable, match=told):
        equip(assemble(work), work, Plan((technique,)))


def test_a_training_with_a_dataloader_is_the_same_with_its_samples_held() -> None:
    wanted = vv.train(loading(shuffle=True), plan=())
    found = vv.train(loading(shuffle=True), plan=["sample-cache"])

    assert str(found.plan) == "sample-cache" and found.losses == wanted.losses


@pytest.mark.parametrize(
    "settings",
    [
        {"shuffle": True},
        {"shuffle": True, "persistent_workers": True},
        {"shuffle": True, "persistent_workers": True, "generator": torch.Generator().manual_seed(3)},
        {"sampler": WeightedRandomSampler(torch.rand(103).tolist(), 50), "persistent_workers": True},
    ],
    ids=["shuffled", "staying", "own-generator", "weighted"],
)
def test_batches_of_workers_are_the_same_and_every_sample_comes_once_an_epoch(settings: dict[str, Any]) -> None:
    generator = settings.get("generator")
    before = None if generator is None else generator.get_state()
    plain = epochs(loading(num_workers=2, **settings), Plan())
    if generator is not None:
        generator.set_state(before)
    work = loading(num_workers=2, **settings)
    feed = equip(assemble(work), work, Plan((SampleCache(),))).feed
    reads = work.data.dataset.reads
    seed_everything(5)
    held = [[*feed.epoch(number)] for number in range(2)] + [torch.rand(1)]

    assert same(plain, held) and work.data.dataset.reads == reads
    assert "sampler" in settings or sum(len(labels) for _, labels in held[0]) == 103


def test_a_training_with_workers_that_stay_is_proved_and_the_same_with_its_samples_held() -> None:
    wanted = vv.train(loading(shuffle=True, num_workers=1, persistent_workers=True), plan=())
    found = vv.train(loading(shuffle=True, num_workers=1, persistent_workers=True), plan=["sample-cache"])

    assert str(found.plan) == "sample-cache" and found.losses == wanted.losses


def test_a_dataloader_draws_what_it_draws_in_a_loop_of_ones_own() -> None:
    own = loading(shuffle=True).data
    feed = assemble(loading(shuffle=True)).feed
    seed_everything(5)
    wanted = [list(own), list(own), torch.rand(1)]

    seed_everything(5)
    assert same(wanted, [list(feed.epoch(0)), list(feed.epoch(1)), torch.rand(1)])
