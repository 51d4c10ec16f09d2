"""Splits each batch over several copies of the program, a share of the threads each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable, UsageError
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.data import samples

LEAST_FLOPS = 2e6
"""Below this a call is over before a second copy has been woken."""


@dataclasses.dataclass(frozen=True)
class Instances(Technique):
    """`count` copies of the program in one process; each answers its part of the batch with its share of the threads.

    One copy with all threads waits for the slowest of them after each operator; copies wait once a call. Weights are in
    memory once a copy, unless the runtime shares them. A batch smaller than `count` is answered by one copy. Raises
    UsageError for a count below 2, NotApplicable where calls cannot be split by samples.

    Source: Liu et al., Optimizing CNN Model Inference on CPUs, USENIX ATC 2019; OpenVINO's streams and ONNX Runtime's
    advice on several sessions are the same idea.

    >>> str(Instances(4))
    'instances(count=4)'
    """

    count: int = 2

    stage = Stage.PARALLEL
    family = Family.SYSTEM
    effect = Effect.ROUNDED
    needs = frozenset({Fact.ON_CPU})
    source = "Liu et al., USENIX ATC 2019, arXiv:1809.02697"

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 2:
            raise UsageError(f"instances received count={self.count!r}; allowed is a whole number of 2 or more")

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """One copy a core, and half as many, where the example has a sample for each."""
        size = _batch_of(work)
        if size < 2 or not _splits(work.signature.has_batch, [spec.batch_axis for spec in work.signature.outputs]):
            return
        cores = machine.cores_allowed
        for count in dict.fromkeys((cores, cores // 2)):
            if 2 <= count <= size and work.cost.flops / count >= LEAST_FLOPS:
                yield cls(count)

    def rewrite(self, cost: Cost) -> Cost:
        """The same work with fewer barriers, and the time to wake the other copies."""
        return cost.replace(
            weight_bytes=cost.weight_bytes * self.count,
            call_seconds=cost.call_seconds + 3e-5,
            efficiency=min(1.0, cost.efficiency * 1.1),
        )

    def apply(self, model: Model, work: Work) -> Model:
        """The model with its number of copies set."""
        if not _splits(model.signature.has_batch, [spec.batch_axis for spec in model.signature.outputs]):
            raise NotApplicable("its calls cannot be split by samples, so several copies would have nothing to share")
        if model.settings.threads is None:
            threads = max(1, work.cost.threads // self.count)
            return model.replace(settings=model.settings.replace(instances=self.count, threads=threads))
        return model.replace(settings=model.settings.replace(instances=self.count))


def _splits(has_batch: bool, output_axes: list[int | None]) -> bool:
    return has_batch and None not in output_axes


def _batch_of(work: Work) -> int:
    """How many samples the example holds; 1 where there is none."""
    if work.example is None:
        return 1
    axes = [spec.batch_axis for spec in work.signature.inputs]
    leaves = samples.read(work.example)[0]
    return next((leaf.shape[axis] for leaf, axis in zip(leaves, axes, strict=True) if axis is not None), 1)
