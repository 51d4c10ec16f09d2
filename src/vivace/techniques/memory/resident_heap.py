"""Keeps freed memory in the process, in huge pages, between the operators of a call and between calls."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.core.work import Work
from vivace.runtimes.settings import heap

LEAST_BYTES = 4e6
"""Of activations in a call: the C library keeps smaller pieces by itself."""
TRAINING_BYTES = 1 << 28
"""Of the heap of a training, in huge pages."""


@dataclasses.dataclass(frozen=True)
class ResidentHeap(Technique):
    """glibc told to return no freed memory to the kernel, and to use huge pages for as much as the activations take.

    PyTorch takes and frees memory for every operator; what is returned is cleared and mapped anew, page by page, at the
    next call. Holds for the whole process that loads the artifact, until the program is closed: an allocator cannot be
    set for one model. The process keeps the most that it ever needed. Runtimes that plan their memory ahead (ONNX
    Runtime, OpenVINO) gain nothing. Raises NotApplicable without glibc.

    Source: https://man7.org/linux/man-pages/man3/mallopt.3.html;
    https://docs.kernel.org/admin-guide/mm/transhuge.html.

    >>> ResidentHeap.name()
    'resident-heap'
    """

    stage = Stage.MEMORY
    family = Family.SYSTEM
    effect = Effect.EXACT
    needs = frozenset({Fact.TORCH_GRAPH, Fact.UNCOMPILED, Fact.ON_CPU})
    breaks = frozenset({Fact.ONNX_READY, Fact.OPENVINO_READY})
    source = "https://man7.org/linux/man-pages/man3/mallopt.3.html"

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """One setting, where calls move enough memory."""
        if heap.is_available() and work.cost.activation_bytes >= LEAST_BYTES:
            yield cls()

    def rewrite(self, cost: Cost) -> Cost:
        """Pages that are there already: about a third less time for each byte of activations."""
        return cost.replace(activation_bytes=cost.activation_bytes * 0.7)

    def equip(self, rig: Rig, job: Training) -> Rig:
        """A training whose process keeps what its steps free."""
        if not heap.is_available():
            raise NotApplicable("the C library here is not glibc, whose allocator has the switches")
        return rig.replace(outside=(*rig.outside, _held))

    def apply(self, model: Model, work: Work) -> Model:
        """The model with the heap that it needs in its settings."""
        if not heap.is_available():
            raise NotApplicable("the C library here is not glibc, whose allocator has the switches")
        size = int(min(work.cost.activation_bytes, heap.MOST_BYTES))
        return model.replace(settings=model.settings.replace(heap_bytes=size))


@contextlib.contextmanager
def _held() -> Iterator[None]:
    heap.hold(TRAINING_BYTES)
    try:
        yield
    finally:
        heap.release()
