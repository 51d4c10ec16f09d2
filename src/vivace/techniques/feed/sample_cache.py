"""Keeps samples as they come out of the dataset, decoded and preprocessed, in memory or on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from vivace.core.errors import DiskFull, NotApplicable, UsageError, unknown_name
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Feed, Rig
from vivace.core.work import Work
from vivace.data.fingerprint import fingerprint
from vivace.data.replacement import PINNED, POLICIES, policy_of, spread
from vivace.data.replay import replayed
from vivace.data.sample_files import SampleFiles, samples_folder
from vivace.data.sample_table import ReplacedSamples, SampleTable, Shape, fill
from vivace.measure.clock import SystemClock
from vivace.measure.memory import available_bytes
from vivace.techniques.feed.cached import CachedFeed, ReplacedFeed
from vivace.techniques.feed.held import collates_itself, held_feed
from vivace.training.examine import same
from vivace.training.feed import Order, SampleFeed
from vivace.training.feeding.purity import probes, why_random

MEMORY, DISK = "memory", "disk"
SHARE_OF_MEMORY = 0.5
"""Of the memory that is free, so much may be taken."""
LEAST_SHARE = 0.05
"""A cache that holds less of the samples than this is not worth having."""


@dataclasses.dataclass(frozen=True)
class SampleCache(Technique):
    """Samples are read once; then a batch is an indexed copy, with no Python, decoding or preprocessing for a sample.

    Batches hold the same values in the same order as before. Random changes to samples would be frozen by it: they
    belong in the job's `augment`, which runs on every batch that leaves the cache.

    `on` is "memory" or "disk". What is kept on disk (`folder`, unless it is empty; the user's cache folder otherwise)
    is found again by later runs of a job with the same data and preprocessing (`data.fingerprint`), and is used from
    mapped files; data that are read whole in less than `least_seconds` are not kept there. `gigabytes` is the most
    that this cache takes, `total_gigabytes` what all caches in the folder may: the ones that were not used for longest
    are removed. Where not all samples fit, `policy` says which are held: pinned, belady, arc, lfu, lru or fifo. In
    epochs no policy can hit more often than pinned does (decision 0017), and it alone can be kept on disk.

    Where the job collates samples itself, or gives a DataLoader, single samples are held in memory, all of them, and
    collated as before for each batch; a DataLoader's own sampler and collate_fn make the batches, without its workers,
    where these were seen to make the same.

    Raises NotApplicable where samples differ when they are asked for twice, where they cannot be stacked, where too few
    fit, and where the disk is full.

    Source: Mohan et al., Analyzing and Mitigating Data Stalls in DNN Training, VLDB 2021 (arXiv:2007.06775).

    >>> str(SampleCache(gigabytes=2.0, on="disk"))
    'sample-cache(gigabytes=2.0, on=disk)'
    """

    gigabytes: float = 4.0
    on: str = MEMORY
    policy: str = PINNED
    folder: str = ""
    total_gigabytes: float = 16.0
    least_seconds: float = 3.0

    stage = Stage.FEED
    family = Family.SYSTEM
    effect = Effect.EXACT
    needs = frozenset({Fact.TRAINING, Fact.FED_ON_DEMAND})
    source = "Mohan et al., VLDB 2021, arXiv:2007.06775"

    def __post_init__(self) -> None:
        for name in ("gigabytes", "total_gigabytes"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise UsageError(f"sample-cache received {name}={value!r}; allowed is a number above 0")
        if self.on not in (MEMORY, DISK):
            raise UsageError(f"sample-cache received on={self.on!r}; allowed are {MEMORY!r} and {DISK!r}")
        if self.policy not in POLICIES:
            raise unknown_name("policy of sample-cache", self.policy, POLICIES)
        if self.on == DISK and self.policy != PINNED:
            raise UsageError(
                f"sample-cache received policy={self.policy!r} on disk; allowed there is {PINNED!r}, which is never "
                "written again; other policies work in memory"
            )

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """On disk, which declines what is read quickly; then in memory."""
        yield cls(on=DISK)
        yield cls()

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig with its feed cut from samples that were read before."""
        feed = rig.feed
        if collates_itself(job, feed):
            return rig.replace(feed=self._held(job, feed))
        if not isinstance(feed, SampleFeed):
            raise NotApplicable(
                "the data give whole batches, not samples by their number (give a Dataset and batch_size), or are "
                "cached or prefetched already"
            )
        if job.epochs == 1 and self.on == MEMORY:
            raise NotApplicable("in one epoch every sample is read once, so reading it before saves nothing")
        key = fingerprint(feed.data) if self.on == DISK else ""  # as given: reading may change the dataset's own state
        numbers = probes(feed.order.samples)
        reason = why_random(feed, [[number] for number in numbers])
        if reason is not None:
            raise NotApplicable(reason)
        clock = SystemClock()
        began = clock.now()
        seen = [feed.collect([number]) for number in numbers]
        sample_seconds = (clock.now() - began) / len(numbers)
        shape = Shape(seen[0])
        capacity = self._capacity(shape, feed.order.samples)
        rig = rig.replace(notes=(*rig.notes, *self._notes(feed, capacity, sample_seconds)))
        if self.policy != PINNED and capacity < feed.order.samples:
            return rig.replace(feed=ReplacedFeed(feed, self._replaced(shape, capacity, feed.order)))
        chosen = spread(capacity, feed.order.samples)
        if self.on == MEMORY:
            table = _read(feed, shape, chosen)
        else:
            table = self._from_disk(feed, shape, chosen, fingerprint(key, seen, numbers, capacity), sample_seconds)
        return rig.replace(feed=CachedFeed(feed, table))

    def _held(self, job: Training, feed: Feed) -> Feed:
        """Samples held one by one, for whoever collates them."""
        if self.on != MEMORY:
            raise NotApplicable("samples that are collated by the job itself are held in memory alone (on='memory')")
        if job.epochs == 1:
            raise NotApplicable("in one epoch every sample is read once, so reading it before saves nothing")
        return held_feed(job, feed, min(self.gigabytes * 1e9, SHARE_OF_MEMORY * available_bytes()))

    def _capacity(self, shape: Shape, samples: int) -> int:
        """How many samples fit. Raises NotApplicable where that is next to nothing."""
        most = self.gigabytes * 1e9
        if self.on == MEMORY:
            most = min(most, SHARE_OF_MEMORY * available_bytes())
        else:
            most = min(most, self.total_gigabytes * 1e9)
        fitting = min(samples, int(most / shape.sample_bytes))
        if fitting < max(1, LEAST_SHARE * samples):
            raise NotApplicable(
                f"the samples take {samples * shape.sample_bytes / 1e9:.2g} GB, and {most / 1e9:.2g} GB may be used "
                "(gigabytes), which is too little to be worth it"
            )
        return fitting

    def _replaced(self, shape: Shape, capacity: int, order: Order) -> Callable[[int], ReplacedSamples]:
        """What makes an empty cache for a run that begins with some epoch."""

        def make(first: int) -> ReplacedSamples:
            policy = policy_of(self.policy, capacity, order.samples, lambda later: order.numbers(first + later))
            return ReplacedSamples(shape, policy)

        return make

    def _notes(self, feed: SampleFeed, capacity: int, sample_seconds: float) -> list[str]:
        """Where the cache is smaller than the data: what each policy would hold of the run's own order."""
        samples = feed.order.samples
        if capacity == samples:
            return []
        clock, told = SystemClock(), list[str]()
        for name in POLICIES:
            began = clock.now()
            found = replayed(name, feed.order.numbers, samples, capacity)
            each = (clock.now() - began) / found.accesses
            saved = found.share * samples * sample_seconds
            told.append(f"{name} {found.share:.1%} ({saved:.2g} s an epoch saved, {each * 1e6:.1f} us an access)")
        return [
            f"the cache holds {capacity} of {samples} samples, policy {self.policy}; share of accesses held, replayed "
            f"on this run's order: {', '.join(told)}"
        ]

    def _from_disk(
        self, feed: SampleFeed, shape: Shape, numbers: list[int], key: str, sample_seconds: float
    ) -> SampleTable:
        """The table of a run before, or one that is read and kept now."""
        try:
            folder = Path(self.folder) if self.folder else samples_folder()
        except RuntimeError as error:  # of Path.home
            raise NotApplicable(f"there is no home folder to keep samples in ({error}); give folder") from error
        files = SampleFiles(folder, int(self.total_gigabytes * 1e9))
        samples = feed.order.samples
        try:
            found = files.kept(key, shape, numbers, samples)
            if found is not None and not _agrees(found, feed):
                files.remove(key)  # damaged
                found = None
            if found is None:
                expected = sample_seconds * len(numbers)
                if expected < self.least_seconds:
                    raise NotApplicable(
                        f"reading all samples takes {expected:.2g} s, which is not worth keeping them on the disk "
                        f"(least_seconds={self.least_seconds:g})"
                    )
                found = files.keep(
                    key, shape, numbers, samples, lambda columns: fill(shape, columns, numbers, feed.collect)
                )
        except DiskFull as error:
            raise NotApplicable(str(error)) from error
        except OSError as error:
            raise NotApplicable(f"samples cannot be kept in {files.folder}: {error}") from error
        return found


def _read(feed: SampleFeed, shape: Shape, numbers: list[int]) -> SampleTable:
    columns = shape.empty(len(numbers))
    fill(shape, columns, numbers, feed.collect)
    return SampleTable(shape, columns, numbers, feed.order.samples)


def _agrees(table: SampleTable, feed: SampleFeed) -> bool:
    """Whether some rows are what the dataset gives now."""
    numbers = torch.tensor([table.numbers[place] for place in probes(len(table.numbers))])
    return same(table.batch(table.rows_of(numbers)), feed.collect(numbers.tolist()))
