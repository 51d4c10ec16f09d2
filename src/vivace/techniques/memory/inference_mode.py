"""Runs without a record of what happened, which only training needs."""

from __future__ import annotations

import dataclasses

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work


@dataclasses.dataclass(frozen=True)
class InferenceMode(Technique):
    """Every call inside `torch.inference_mode()`: no autograd graph, no version counters, no view tracking.

    The rung that everybody should stand on. Raises NotApplicable when the program already runs so.

    Source: https://docs.pytorch.org/docs/stable/notes/autograd.html#inference-mode.

    >>> InferenceMode.name()
    'inference-mode'
    """

    stage = Stage.MEMORY
    family = Family.SYSTEM
    effect = Effect.EXACT
    needs = frozenset({Fact.TORCH_GRAPH, Fact.UNCOMPILED})
    breaks = frozenset({Fact.ONNX_READY, Fact.OPENVINO_READY})
    source = "https://docs.pytorch.org/docs/stable/notes/autograd.html#inference-mode"

    def rewrite(self, cost: Cost) -> Cost:
        """A fifth of what launching an operator costs goes into the autograd record."""
        return cost.replace(operator_seconds=cost.operator_seconds * 0.8)

    def apply(self, model: Model, work: Work) -> Model:
        """The model with inference mode set."""
        if model.settings.inference_mode:
            raise NotApplicable("the program already runs in inference mode")
        return model.replace(settings=model.settings.replace(inference_mode=True))
