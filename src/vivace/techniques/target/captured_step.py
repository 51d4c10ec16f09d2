"""Starts all kernels of a training step's forward and backward pass at once, as a CUDA graph."""

from __future__ import annotations

import dataclasses

from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.devices.recorder import CudaRecorder
from vivace.training.captured import CapturedGradients


@dataclasses.dataclass(frozen=True)
class CapturedStep(Technique):
    """Forward and backward passes captured once, after three steps, and replayed with every batch copied into place.
    Kernels that a compiler made of the passes (compiled-training of the loss or the model) are captured like others.

    The optimizer's update follows as before; with fused-optimizer it is one launch. Batches of another shape, such as
    the last one of an epoch, are computed as before. Raises NotApplicable where the model is not on a CUDA device, and
    where batches are computed in parts.

    Source: Nguyen et al., Accelerating PyTorch with CUDA Graphs, 2021,
    https://pytorch.org/blog/accelerating-pytorch-with-cuda-graphs/.

    >>> CapturedStep.name()
    'captured-step'
    """

    stage = Stage.TARGET  # after what compiles the passes, whose kernels it captures
    family = Family.SYSTEM
    effect = Effect.ROUNDED
    needs = frozenset(
        {
            Fact.TRAINING, Fact.AUTOGRAD, Fact.WHOLE_BATCH, Fact.UNSCALED_LOSS, Fact.ONE_PROCESS, Fact.CUDA_DEVICE,
        }
    )  # fmt: skip
    source = "https://pytorch.org/blog/accelerating-pytorch-with-cuda-graphs/"

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig whose gradients come from a graph."""
        if not all(parameter.is_cuda for parameter in rig.model.parameters()):
            raise NotApplicable("the job's model is not on a CUDA device; put it there in the job's `model`")
        captured = CapturedGradients(rig, CudaRecorder())
        return rig.replace(gradients=captured, look=captured.look)
