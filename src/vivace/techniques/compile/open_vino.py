"""Runs the program in OpenVINO."""

from __future__ import annotations

import dataclasses
import json

from vivace.core.cost import Cost
from vivace.core.facts import Fact
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.data import samples
from vivace.runtimes import instances, openvino_graph
from vivace.runtimes.settings import padding

MOST_COMPILATIONS = 4
"""For exact shapes: each one holds packed weights of its own."""


@dataclasses.dataclass(frozen=True)
class OpenVino(Technique):
    """The program in OpenVINO's CPU plug-in, told which precision to use: f32 unless a technique before says otherwise.

    Raises NotApplicable when an operator cannot be converted, MissingExtra without the package.

    Source: https://docs.openvino.ai/2026/openvino-workflow/running-inference.html.

    >>> OpenVino.name()
    'openvino'
    """

    stage = Stage.COMPILE
    family = Family.ALGORITHM
    effect = Effect.ROUNDED
    needs = frozenset({Fact.OPENVINO_READY, Fact.UNCOMPILED, Fact.ON_CPU})
    gives = frozenset({Fact.RUNNABLE})
    breaks = frozenset({Fact.TORCH_GRAPH, Fact.UNCOMPILED, Fact.ONNX_READY})
    source = "https://docs.openvino.ai/2026/openvino-workflow/running-inference.html"
    packages = ("openvino",)
    extra = "openvino"

    @classmethod
    def name(cls) -> str:
        """As its makers write it."""
        return "openvino"

    def rewrite(self, cost: Cost) -> Cost:
        """Fused operators, launched by native code, with packed weights."""
        return cost.replace(
            operators=max(1, cost.operators // 2),
            operator_seconds=min(cost.operator_seconds, 8e-7),
            call_seconds=max(cost.call_seconds, 3e-5),
            activation_bytes=cost.activation_bytes * 0.6,
            efficiency=min(1.0, cost.efficiency * 1.6),
        )

    def apply(self, model: Model, work: Work) -> Model:
        """The model as an OpenVINO graph; the shapes that one copy gets most often have compilations of their own."""
        graph = openvino_graph.to_openvino(model, work).replace(lineage=(*model.lineage, str(self)))
        if work.example is None or model.signature.is_fixed:
            return graph
        calls = list(samples.read(work.example))
        if graph.settings.padding is not None:
            calls = [padding.padded(calls[0], bucket) for bucket in graph.settings.padding.buckets]
        calls = calls[:MOST_COMPILATIONS]
        shapes = [[list(leaf.shape) for leaf in instances.first_part(graph, leaves)] for leaves in calls]
        return graph.replace(settings=graph.settings.with_options(exact_shapes=json.dumps(shapes)))
