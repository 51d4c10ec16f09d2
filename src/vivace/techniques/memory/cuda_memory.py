"""Tells PyTorch's CUDA allocator how much it may take, and how it grows."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator

import torch

from vivace.core.errors import NotApplicable, UsageError
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.core.work import Work


@dataclasses.dataclass(frozen=True)
class CudaMemory(Technique):
    """At most `share` of the device's memory for this process, taken in segments that grow (`expandable`) or do not.

    Segments that grow do not break up when batches have many shapes. A process belongs to one training, and has its own
    settings again afterwards. Which devices are visible is CUDA_VISIBLE_DEVICES' to say, before the process starts.
    Raises NotApplicable where the model is not on a CUDA device. It saves memory, so a search does not try it alone.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#memory-management, read in November 2026.

    >>> str(CudaMemory(share=0.5))
    'cuda-memory(share=0.5)'
    """

    share: float = 1.0
    expandable: bool = True

    stage = Stage.MEMORY
    family = Family.SYSTEM
    effect = Effect.EXACT
    needs = frozenset({Fact.TRAINING, Fact.CUDA_DEVICE})
    source = "https://docs.pytorch.org/docs/stable/notes/cuda.html#memory-management"

    def __post_init__(self) -> None:
        if isinstance(self.share, bool) or not isinstance(self.share, int | float) or not 0 < self.share <= 1:
            raise UsageError(f"cuda-memory received share={self.share!r}; allowed is a number above 0, up to 1")

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """None by itself."""
        return iter(())

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig whose run is held to this."""
        if not all(parameter.is_cuda for parameter in rig.model.parameters()):
            raise NotApplicable("the job's model is not on a CUDA device; put it there in the job's `model`")
        return rig.replace(outside=(*rig.outside, functools.partial(_limited, self.share, self.expandable)))


@contextlib.contextmanager
def _limited(share: float, expandable: bool) -> Iterator[None]:
    torch.cuda.memory._set_allocator_settings(f"expandable_segments:{expandable}")
    torch.cuda.set_per_process_memory_fraction(share)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.memory._set_allocator_settings("expandable_segments:False")
