"""Products in 8-bit integers in an ONNX file, activations scaled as they come."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.runtimes import onnx_graph
from vivace.techniques.sensitivity import kept_layers, kept_operators, with_quantized

PRODUCTS = ("MatMul", "Gemm", "LSTM", "Attention", "EmbedLayerNormalization")
"""What is quantized. Not convolutions: ONNX Runtime's ConvInteger made ResNet-50 run at 0.4 of eager's speed."""
AS_PRODUCT = "_MatMul"
"""What the quantizer appends to the name of a Gemm that it writes as a product and a sum, before it looks at names."""
CHANNELS_IN_CELLS = 0.56
"""A two-layer LSTM of width 256 took 1.73 ms with a scale for each channel and 1.64 with one a tensor (two cores with
AMX, measured for this project in 2026)."""


@dataclasses.dataclass(frozen=True)
class OnnxDynamicInt8(Technique):
    """Matrix products and LSTMs with int8 weights and uint8 activations, one scale a tensor, found at each call.

    Needs no data. `per_channel` gives each output channel of a weight its own scale; `reduce_range` keeps weights to 7
    bits, for processors without int8 dot products, whose 16-bit sums could overflow. Layers that the user named stay in
    float. Raises NotApplicable when the model has no other such product with constant weights, or where a named layer
    is not found again, MissingExtra without the packages.

    Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, read in November 2026.

    >>> str(OnnxDynamicInt8(per_channel=False))
    'onnx-dynamic-int8(per_channel=False)'
    """

    per_channel: bool = True
    reduce_range: bool = False

    stage = Stage.PRECISION
    family = Family.ALGORITHM
    effect = Effect.CHANGED
    needs = frozenset({Fact.ONNX_READY, Fact.UNQUANTIZED, Fact.FLOAT32, Fact.UNCOMPILED, Fact.ON_CPU})
    breaks = frozenset({Fact.TORCH_GRAPH, Fact.OPENVINO_READY, Fact.RUNNABLE, Fact.UNQUANTIZED, Fact.FLOAT32})
    on_without = (("reduce_range", Fact.INT8_INSTRUCTIONS),)
    source = "https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html"
    packages = ("onnx", "onnxruntime", "onnxscript")
    extra = "onnx"

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """A scale for each channel first; 7-bit weights only where the processor has no int8 dot products."""
        here = cls.here(machine)
        yield cls(per_channel=True, **here)
        yield cls(per_channel=False, **here)

    def rewrite(self, cost: Cost) -> Cost:
        """A quarter of the weights, int8 products, and an operator that finds scales before each; recurrent cells are
        slower with a scale for each channel; nothing where most of the work is in convolutions, which stay in float."""
        if cost.mostly_convolutions:
            return cost
        return cost.replace(
            precision="int8",
            weight_bytes=cost.weight_bytes / 4,
            operators=cost.operators * 5 // 4,
            efficiency=cost.efficiency * (CHANNELS_IN_CELLS if self.per_channel and cost.mostly_recurrent else 0.6),
        )

    def apply(self, model: Model, work: Work) -> Model:
        """The model as an ONNX file with dynamically quantized products."""
        plain = onnx_graph.to_onnx(model, work)
        kept = kept_layers(model, work)

        def operators(file: Path) -> list[str]:
            return kept_operators(onnx_graph.layers_of(file, model) if kept else {}, kept, "ONNX")

        made = onnx_graph.rewritten(
            plain, work, str(self), lambda path: self._quantize(Path(plain.program), path, operators)
        )
        return with_quantized(made, onnx_graph.integer_layers(Path(made.program), Path(plain.program), model), kept)

    def _quantize(self, plain: Path, path: Path, kept: Callable[[Path], list[str]]) -> None:
        onnx_graph.require("onnxruntime", "onnx", self.name())
        import onnx

        with onnx_graph.quiet():
            from onnxruntime.quantization import QuantType, quantize_dynamic

            prepared = onnx_graph.prepared(plain, path.with_name("prepared.onnx"))
            original = onnx.load(str(prepared))
            excluded = [name for node in kept(prepared) for name in (node, f"{node}{AS_PRODUCT}")]
            _unshare(original.graph)
            del original.graph.value_info[:]  # the quantizer transposes weights of Gemm and trips over their old shapes
            quantize_dynamic(
                original,
                str(path),
                nodes_to_exclude=excluded,
                op_types_to_quantize=list(PRODUCTS),
                per_channel=self.per_channel,
                reduce_range=self.reduce_range,
                weight_type=QuantType.QInt8,
                extra_options={"MatMulConstBOnly": True},
            )
        if not any("Integer" in node.op_type or "Dynamic" in node.op_type for node in onnx.load(str(path)).graph.node):
            raise NotApplicable("no matrix product or LSTM of the model has constant weights to quantize")


def _unshare(graph: Any) -> None:
    """Give each Gemm a weight of its own: the quantizer turns a Gemm's round where it lies, for all who read it."""
    weights = {one.name: one for one in graph.initializer}
    seen = Counter(name for node in graph.node for name in node.input)
    for number, node in enumerate(graph.node):
        shared = weights.get(node.input[1]) if node.op_type == "Gemm" else None
        if shared is not None and seen[shared.name] > 1:
            own = graph.initializer.add()
            own.CopyFrom(shared)
            own.name = node.input[1] = f"{shared.name}_of_{node.name or number}"
