"""An ONNX file whose matrix weights are kept in 8 or 4 bits, in blocks with a scale each."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable, UsageError
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.runtimes import onnx_graph
from vivace.techniques.sensitivity import kept_layers, kept_operators, with_quantized

BITS = (4, 8)
BLOCKS = (16, 32, 64, 128, 256)
INT8_PRODUCTS = 4
"""ONNX Runtime's accuracy_level: 4 multiplies blocks of activations rounded to int8, 1 multiplies in float32."""
FLOAT32_PRODUCTS = 1
SCALE_BITS = 32
EXTERNAL_DATA_BYTES = 1 << 30


@dataclasses.dataclass(frozen=True)
class OnnxWeightOnly(Technique):
    """Matrix products with weights of `bits` (8 or 4) and one float32 scale for each `block_size` inputs of a column.

    The products become ONNX Runtime's MatMulNBits; needs no data. With `int8_products` a block of activations is
    rounded to int8 before it is multiplied, which is faster where there are int8 dot products; without, weights are
    widened to float32. Not touched are convolutions, LSTMs, products of two activations, and layers that the user
    named. Raises NotApplicable when no product is left that has constant float32 weights of at least one block of
    inputs, or where a named layer is not found again, MissingExtra without the packages, UsageError for other bits or
    blocks.

    Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html#quantize-to-int4uint4, read in
    November 2026; Dettmers and Zettlemoyer, ICML 2023 (arXiv:2212.09720), section 2, on blocks.

    >>> str(OnnxWeightOnly(bits=4))
    'onnx-weight-only(bits=4)'
    """

    bits: int = 8
    block_size: int = 32
    int8_products: bool = True

    stage = Stage.PRECISION
    family = Family.ALGORITHM
    effect = Effect.CHANGED
    needs = frozenset({Fact.ONNX_READY, Fact.UNQUANTIZED, Fact.FLOAT32, Fact.UNCOMPILED, Fact.ON_CPU})
    breaks = frozenset({Fact.TORCH_GRAPH, Fact.OPENVINO_READY, Fact.RUNNABLE, Fact.UNQUANTIZED, Fact.FLOAT32})
    source = "https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html#quantize-to-int4uint4"
    packages = ("onnx", "onnxruntime", "onnxscript")
    extra = "onnx"

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise UsageError(f"onnx-weight-only received bits={self.bits!r}; allowed are 4 and 8")
        if self.block_size not in BLOCKS:
            allowed = ", ".join(map(str, BLOCKS))
            raise UsageError(f"onnx-weight-only received block_size={self.block_size!r}; allowed are {allowed}")

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """8 bits first; int8 products where the processor has the instructions."""
        fast = Fact.INT8_INSTRUCTIONS in machine.facts()
        yield cls(bits=8, int8_products=fast)
        yield cls(bits=4, int8_products=fast)

    def rewrite(self, cost: Cost) -> Cost:
        """Fewer bytes of weights; products in int8 or float32 by kernels that widen weights as they go."""
        return cost.replace(
            precision="int8" if self.int8_products else cost.precision,
            weight_bytes=cost.weight_bytes * (self.bits + SCALE_BITS / self.block_size) / 32,
            efficiency=cost.efficiency * (0.4 if self.int8_products else 0.6),
        )

    def apply(self, model: Model, work: Work) -> Model:
        """The model as an ONNX file with the weights of its matrix products in blocks."""
        plain = onnx_graph.to_onnx(model, work)
        source, kept = Path(plain.program), kept_layers(model, work)

        def write(path: Path) -> None:
            found = onnx_graph.layers_of(source, model) if kept else {}
            self._quantize(source, path, frozenset(kept_operators(found, kept, "ONNX")))

        made = onnx_graph.rewritten(plain, work, str(self), write)
        return with_quantized(made, onnx_graph.integer_layers(Path(made.program), source, model), kept)

    def _quantize(self, plain: Path, path: Path, kept: Set[str]) -> None:
        onnx_graph.require("onnxruntime", "onnx", self.name())
        import onnx

        original = onnx.load(str(plain))
        _GemmsAsMatMuls(original.graph, self.block_size, kept).run()
        with onnx_graph.quiet(), _kept_root_logger():
            from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

            level = INT8_PRODUCTS if self.int8_products else FLOAT32_PRODUCTS
            chosen = _large_products(original.graph, self.block_size) - kept
            excluded = [
                node.name for node in original.graph.node if node.op_type == "MatMul" and node.name not in chosen
            ]
            quantizer = MatMulNBitsQuantizer(
                original, self.bits, self.block_size, True, level, nodes_to_exclude=excluded
            )
            quantizer.process()
        quantized = quantizer.model.model
        if not any(node.op_type == "MatMulNBits" for node in quantized.graph.node):
            raise NotApplicable(f"no matrix product has constant float32 weights of {self.block_size} inputs or more")
        external = quantized.ByteSize() >= EXTERNAL_DATA_BYTES
        onnx.save(quantized, str(path), save_as_external_data=external, location="model.onnx.data")


class _GemmsAsMatMuls:
    """Writes y = x B' + c as a product and a sum, which is the form that the quantizer knows, but for `kept` nodes."""

    def __init__(self, graph: Any, least_inputs: int, kept: Set[str]) -> None:
        self.graph = graph
        self.kept = kept
        self.least_inputs = least_inputs
        self.values = {value.name: value for value in graph.initializer}
        self.transposed: dict[str, str] = {}

    def run(self) -> None:
        """Rewrite every Gemm whose weights are constant and whose factors are 1."""
        nodes = [new for node in self.graph.node for new in self._rewritten(node)]
        del self.graph.node[:]
        self.graph.node.extend(nodes)

    def _rewritten(self, node: Any) -> list[Any]:
        from onnx import helper

        told = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        plain = told.get("alpha", 1.0) == 1.0 and told.get("beta", 1.0) == 1.0 and not told.get("transA", 0)
        if node.op_type == "MatMul" and not node.name:
            node.name = f"{node.output[0]}_product"  # products are chosen by name below
        if node.op_type != "Gemm" or not plain or node.name in self.kept or node.input[1] not in self.values:
            return [node]
        weight = self._columns(node.input[1]) if told.get("transB", 0) else node.input[1]
        if self.values[weight].dims[0] < self.least_inputs:
            return [node]
        has_bias = len(node.input) > 2 and node.input[2]
        product = f"{node.output[0]}_product" if has_bias else node.output[0]
        name = f"{node.name or node.output[0]}_product"
        nodes = [helper.make_node("MatMul", [node.input[0], weight], [product], name=name)]
        if has_bias:
            nodes.append(helper.make_node("Add", [product, node.input[2]], [node.output[0]], name=f"{name}_bias"))
        return nodes

    def _columns(self, name: str) -> str:
        """The name of the transposed weights."""
        from onnx import numpy_helper

        if name not in self.transposed:
            turned = numpy_helper.to_array(self.values[name]).T
            value = numpy_helper.from_array(turned.copy(order="C"), f"{name}_columns")
            self.graph.initializer.append(value)
            self.values[value.name] = value
            self.transposed[name] = value.name
        return self.transposed[name]


def _large_products(graph: Any, least_inputs: int) -> set[str]:
    """Names of the products whose constant float32 weights [inputs, outputs] fill at least one block."""
    sizes = {value.name: tuple(value.dims) for value in graph.initializer if value.data_type == 1}
    return {
        node.name
        for node in graph.node
        if node.op_type == "MatMul"
        and len(sizes.get(node.input[1], ())) == 2
        and sizes[node.input[1]][0] >= least_inputs
    }


@contextlib.contextmanager
def _kept_root_logger() -> Iterator[None]:
    """The quantizer's module sets up the root logger when it is imported, and logs each product; undo and silence."""
    root, own = logging.getLogger(), logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer")
    handlers, level, own_level = list(root.handlers), root.level, own.level
    own.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        own.setLevel(own_level)
