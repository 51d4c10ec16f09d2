"""Runs the program in ONNX Runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from vivace.core.cost import Cost
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.runtimes import onnx_graph


@dataclasses.dataclass(frozen=True)
class OnnxRuntime(Technique):
    """The program as an ONNX file in ONNX Runtime, with all of its graph optimizations.

    `fuse=False` turns them off: the fusion of operators, and with it the folding of constants and blocked layouts,
    which it has no switch for apart. No search tries that; it shows what they gain.

    Raises NotApplicable when an operator cannot be written as ONNX, MissingExtra without the packages.

    Source: https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html, read in November 2026.

    >>> OnnxRuntime.name()
    'onnx-runtime'
    """

    fuse: bool = True

    stage = Stage.COMPILE
    family = Family.ALGORITHM
    effect = Effect.ROUNDED
    needs = frozenset({Fact.ONNX_READY, Fact.UNCOMPILED, Fact.ON_CPU})
    gives = frozenset({Fact.RUNNABLE})
    breaks = frozenset({Fact.TORCH_GRAPH, Fact.UNCOMPILED, Fact.OPENVINO_READY})
    source = "https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html"
    packages = ("onnx", "onnxruntime", "onnxscript")
    extra = "onnx"

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """With all optimizations."""
        yield cls()

    def unfused(self) -> Technique | None:
        """Without its graph optimizations."""
        return dataclasses.replace(self, fuse=False) if self.fuse else None

    def rewrite(self, cost: Cost) -> Cost:
        """Fused operators, launched by native code, with packed weights."""
        return cost.replace(
            operators=max(1, cost.operators * 6 // 10),
            operator_seconds=min(cost.operator_seconds, 1e-6),
            call_seconds=max(cost.call_seconds, 1e-5),
            activation_bytes=cost.activation_bytes * 0.7,
            efficiency=min(1.0, cost.efficiency * 1.5),
        )

    def apply(self, model: Model, work: Work) -> Model:
        """The model as an ONNX file."""
        converted = onnx_graph.to_onnx(model, work)
        if not self.fuse:
            converted = converted.replace(settings=converted.settings.with_options(graph_optimization="disabled"))
        return converted.replace(lineage=(*model.lineage, str(self)))
