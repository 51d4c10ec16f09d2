"""Reads the samples of the next batches in threads or processes of their own while the training computes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from vivace.core.errors import NotApplicable, UsageError
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.core.work import Work
from vivace.techniques.feed.cached import CachedFeed, ReplacedFeed
from vivace.techniques.feed.crew import Crew
from vivace.training.feed import SampleFeed
from vivace.training.feeding.lookahead import PrefetchedFeed
from vivace.training.feeding.purity import probes, why_random
from vivace.training.feeding.sharing import open_file_of
from vivace.training.feeding.transfer import device_of

THREADS, PROCESSES = "threads", "processes"
MOST_WORKERS = 16
"""That a search tries."""


@dataclasses.dataclass(frozen=True)
class SamplePrefetch(Technique):
    """Batches are made ahead of the step that needs them, by `workers` threads or processes (`by`).

    The order of every epoch is known, so that it is read ahead of, across the end of an epoch too, `depth` batches for
    each worker. Batches hold the same values in the same order. On a CUDA device they are sent ahead as well, from
    pinned memory and beside the computation. Threads share the dataset, whose reading must bear that; they gain where
    it leaves Python's lock, as decoders and NumPy do. Processes have a copy each, and gain for Python too.

    Raises NotApplicable where samples differ when they are asked for twice or draw from the global generators, where
    a dataset cannot be sent to processes, where it holds an open file that several threads would share, and where all
    samples are cached, of more than one thread.

    Source: Murray et al., tf.data: A Machine Learning Data Processing Framework, VLDB 2021 (arXiv:2101.12127), 3.2.

    >>> str(SamplePrefetch(workers=2, by="processes"))
    'sample-prefetch(workers=2, by=processes)'
    """

    workers: int = 1
    depth: int = 2
    by: str = THREADS

    stage = Stage.FEED
    family = Family.SYSTEM
    effect = Effect.EXACT
    needs = frozenset({Fact.TRAINING, Fact.FED_ON_DEMAND})
    breaks = frozenset({Fact.FED_ON_DEMAND})
    tries_all = True
    source = "Murray et al., VLDB 2021, arXiv:2101.12127, section 3.2"

    def __post_init__(self) -> None:
        for name in ("workers", "depth"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"sample-prefetch received {name}={value!r}; allowed is a whole number of 1 or more")
        if self.by not in (THREADS, PROCESSES):
            raise UsageError(f"sample-prefetch received by={self.by!r}; allowed are {THREADS!r} and {PROCESSES!r}")

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """One thread; then as many of either kind as there are cores, and deeper."""
        cores = min(machine.cores_allowed, MOST_WORKERS)
        yield cls()
        if cores > 1:
            yield cls(workers=cores)
            yield cls(workers=cores, by=PROCESSES)
        yield cls(workers=cores, depth=8)

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig with its feed read ahead of."""
        feed = rig.feed
        if not isinstance(feed, SampleFeed | CachedFeed | ReplacedFeed):
            raise NotApplicable(
                "the data give whole batches, not samples by their number (give a Dataset and batch_size), or are "
                "prefetched already"
            )
        if not feed.reads() and (self.workers > 1 or self.by == PROCESSES):
            raise NotApplicable("every sample is cached, so that a batch is one copy; one thread is enough for it")
        reason = why_random(feed, [[one] for one in probes(feed.order.samples)]) if feed.reads() else None
        if reason is not None:
            raise NotApplicable(reason)
        opened = open_file_of(job.data) if self.by == THREADS and self.workers > 1 and feed.reads() else None
        if opened is not None:  # now, as samples were read: many open it when they are first asked
            raise NotApplicable(
                f"the dataset holds an open file, {opened}, whose place several threads would move under each other, "
                "so that samples would be wrong; use one thread, or open the file for every sample"
            )
        collect = feed.collect
        if self.by == PROCESSES:
            collect = Crew(self.workers, job.data, feed.collate).collect
        ahead = self.workers * self.depth
        prefetched = PrefetchedFeed(feed, collect, self.workers, ahead, job.epochs, lambda: device_of(rig.model))
        return rig.replace(feed=prefetched)
