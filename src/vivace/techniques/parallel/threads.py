"""Chooses how many threads share one call."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import torch

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable, UsageError
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.core.work import Work

SMALL_FLOPS = 2e7
"""Below this, waking a second thread costs about as much as it saves (0.1 ms at 200 GFLOP/s)."""


@dataclasses.dataclass(frozen=True)
class Threads(Technique):
    """The program's runtime with `count` threads, instead of what the runtime would choose.

    Defaults count the host's cores, not those that a container or a busy neighbour leaves, and an oversubscribed
    barrier costs a hundredfold. A setting of the program, never of the process. Raises UsageError for a count below 1,
    NotApplicable when that count is already set.

    Source: Wang et al., Exploiting Parallelism Opportunities with Deep Learning Frameworks, ACM TACO 2020
    (arXiv:1908.04705).

    >>> str(Threads(2))
    'threads(count=2)'
    """

    count: int

    stage = Stage.PARALLEL
    family = Family.SYSTEM
    effect = Effect.ROUNDED
    needs = frozenset({Fact.ON_CPU})
    source = "Wang et al., ACM TACO 2020, arXiv:1908.04705"
    tries_all = True

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise UsageError(f"threads received count={self.count!r}; allowed is a whole number of 1 or more")

    @classmethod
    def here(cls, machine: Machine) -> dict[str, Any]:
        """As many as there are cores that this process may use."""
        return {"count": max(1, machine.cores_allowed)}

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """1, all cores allowed and the powers of two between; one first when the work is small."""
        cores = max(1, machine.cores_allowed)
        counts = {cores, *(2**power for power in range(cores.bit_length()) if 2**power <= cores)}
        is_small = work.cost.flops < SMALL_FLOPS
        yield from (cls(count) for count in sorted(counts, reverse=not is_small))

    def rewrite(self, cost: Cost) -> Cost:
        """That many cores; a single one has no barrier to wait at after each operator."""
        barrier = 0.8 if self.count == 1 else 1.0
        return cost.replace(threads=self.count, operator_seconds=cost.operator_seconds * barrier)

    def apply(self, model: Model, work: Work) -> Model:
        """The model with its number of threads set."""
        if model.settings.threads == self.count:
            raise NotApplicable(f"the program already runs with {self.count} threads")
        return model.replace(settings=model.settings.replace(threads=self.count))

    def equip(self, rig: Rig, job: Training) -> Rig:
        """A training whose steps share so many threads; the process has its own number again afterwards."""
        return rig.replace(outside=(*rig.outside, functools.partial(_threads, self.count)))


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
