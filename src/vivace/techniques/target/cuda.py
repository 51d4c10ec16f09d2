"""Moves the program to a CUDA device."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.program import Form, Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work


@dataclasses.dataclass(frozen=True)
class Cuda(Technique):
    """Weights on the first visible CUDA device; inputs are moved there, and outputs back to where the inputs were.

    Choose the device with CUDA_VISIBLE_DEVICES. Sums run in another order there, so the effect is ROUNDED; TF32 stays
    off unless `tf32` is in the plan. Raises NotApplicable when the program is already there, or is no PyTorch graph.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html, read in November 2026.

    >>> Cuda.name()
    'cuda'
    """

    stage = Stage.TARGET
    family = Family.HARDWARE
    effect = Effect.ROUNDED
    needs = frozenset({Fact.TORCH_GRAPH, Fact.CUDA_DEVICE, Fact.UNQUANTIZED})
    gives = frozenset({Fact.ON_CUDA, Fact.RUNNABLE})
    breaks = frozenset({Fact.ON_CPU, Fact.ONNX_READY, Fact.OPENVINO_READY})
    source = "https://docs.pytorch.org/docs/stable/notes/cuda.html"

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """None for a model that was given on the device."""
        if Fact.ON_CUDA not in work.facts:
            yield cls()

    def rewrite(self, cost: Cost) -> Cost:
        """The device's ceilings, and a copy to it and back at each call."""
        return cost.replace(call_seconds=cost.call_seconds + 3e-5, device="cuda")

    def apply(self, model: Model, work: Work) -> Model:
        """The model with the CUDA device as its place."""
        if model.form not in (Form.TORCH, Form.INDUCTOR):
            raise NotApplicable(f"a program of form {model.form.value} cannot be moved to a CUDA device")
        if model.settings.device != "cpu":
            raise NotApplicable(f"the program is already on {model.settings.device}")
        return model.replace(settings=model.settings.replace(device="cuda:0"))
