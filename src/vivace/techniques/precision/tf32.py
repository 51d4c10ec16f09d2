"""Lets a CUDA device round the inputs of float32 products to TF32."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import torch

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.core.work import Work
from vivace.techniques.precision.narrow import device_of


@dataclasses.dataclass(frozen=True)
class Tf32(Technique):
    """Products of float32 tensors with 10 bits of mantissa, on tensor cores; everything else stays float32.

    A setting of the program, entered around each call, or around the steps of a training; nothing is set for the
    process. Raises NotApplicable when it is already set, and for a training whose model is not on a CUDA device.

    Source: NVIDIA A100 Tensor Core GPU Architecture, 2020, "TF32 Tensor Cores";
    https://docs.pytorch.org/docs/stable/notes/cuda.html#tensorfloat-32-tf32-on-ampere-and-later-devices.

    >>> Tf32().rewrite(Cost(1e9, 4e6, 4e6, 100)).precision
    'tf32'
    """

    stage = Stage.PRECISION
    family = Family.HARDWARE
    effect = Effect.CHANGED
    needs = frozenset({Fact.TORCH_GRAPH, Fact.FLOAT32, Fact.CUDA_BF16})
    unit_roundoff = 2.0**-11
    breaks = frozenset({Fact.FLOAT32, Fact.ONNX_READY, Fact.OPENVINO_READY, Fact.RUNNABLE, Fact.ON_CPU})
    source = "NVIDIA A100 Tensor Core GPU Architecture whitepaper, 2020"

    def rewrite(self, cost: Cost) -> Cost:
        """Products at the ceiling of TF32; the bytes stay."""
        return cost.replace(precision="tf32")

    def apply(self, model: Model, work: Work) -> Model:
        """The model with TF32 products allowed."""
        if model.settings.tf32:
            raise NotApplicable("TF32 products are already allowed")
        return model.replace(settings=model.settings.replace(tf32=True))

    def equip(self, rig: Rig, job: Training) -> Rig:
        """A training whose products may be rounded."""
        if device_of(rig.model) != "cuda":
            raise NotApplicable("the job's model is not on a CUDA device; put it there in the job's `model`")
        return rig.replace(outside=(*rig.outside, _allowed))


@contextlib.contextmanager
def _allowed() -> Iterator[None]:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = True
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
