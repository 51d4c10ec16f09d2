"""Products in 8-bit integers in an ONNX file, activations scaled by what calibration data showed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
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
from vivace.runtimes.program import as_numpy
from vivace.techniques.calibration import first_calls
from vivace.techniques.sensitivity import check_keep, kept_counts, kept_layers, kept_operators, with_quantized

METHODS = ("minmax", "entropy", "percentile")
MOST_SAMPLES = 300
KEPT_COSTS = 0.05
"""What a layer that stays in float is guessed to cost, as a share of the whole time."""


@dataclasses.dataclass(frozen=True)
class OnnxStaticInt8(Technique):
    """Weights and activations in int8, with fixed scales from calibration calls, as QuantizeLinear pairs (QDQ).

    `method` finds the range of an activation: its extremes (minmax), the range of least information lost (entropy) or
    of 99.999% of the values (percentile). `products_only` leaves everything but convolutions and matrix products in
    float32, which attention needs; otherwise what lies between them is int8 too. `reduce_range` keeps weights to 7
    bits, for processors without int8 dot products. `keep` is how many layers stay in float: those that cost the output
    most for the time that int8 saves there (`techniques.sensitivity`), beside the ones that the user named.
    Activations are unsigned and weights signed (U8S8), one scale a channel. About 300 samples are read. Raises
    NotApplicable without calibration data or without such a product, MissingExtra without the packages, UsageError for
    an unknown method.

    Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, read in November 2026; Jacob
    et al., CVPR 2018 (arXiv:1712.05877).

    >>> str(OnnxStaticInt8(method="entropy"))
    'onnx-static-int8(method=entropy)'
    """

    method: str = "minmax"
    products_only: bool = False
    reduce_range: bool = False
    keep: int = 0

    stage = Stage.PRECISION
    family = Family.ALGORITHM
    effect = Effect.CHANGED
    needs = frozenset({Fact.ONNX_READY, Fact.UNQUANTIZED, Fact.FLOAT32, Fact.UNCOMPILED, Fact.ON_CPU, Fact.CALIBRATION})
    breaks = frozenset({Fact.TORCH_GRAPH, Fact.OPENVINO_READY, Fact.RUNNABLE, Fact.UNQUANTIZED, Fact.FLOAT32})
    on_without = (("reduce_range", Fact.INT8_INSTRUCTIONS),)
    source = "https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html"
    packages = ("onnx", "onnxruntime", "onnxscript")
    extra = "onnx"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"onnx-static-int8 received method={self.method!r}; allowed are {', '.join(METHODS)}")
        check_keep(self.name(), self.keep)

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """Products only where there is attention; elsewhere everything first."""
        here = cls.here(machine)
        if Fact.HAS_ATTENTION not in work.facts:
            yield cls(**here)
        yield cls(products_only=True, **here)
        yield cls(method="entropy", products_only=Fact.HAS_ATTENTION in work.facts, **here)

    def gentler(self, work: Work) -> Iterator[Technique]:
        """More and more layers in float, up to all but one."""
        return (dataclasses.replace(self, keep=count) for count in kept_counts(work, self.keep))

    def rewrite(self, cost: Cost) -> Cost:
        """A quarter of the weights, and of the activations where those between products are int8 too; nothing where
        most of the work is in recurrent cells, which stay in float."""
        if cost.mostly_recurrent:
            return cost
        activations = 0.6 if self.products_only else 0.35
        return cost.replace(
            precision="int8",
            weight_bytes=cost.weight_bytes / 4,
            activation_bytes=cost.activation_bytes * activations,
            efficiency=cost.efficiency * (0.55 if self.products_only else 0.7) / (1 + KEPT_COSTS * self.keep),
        )

    def apply(self, model: Model, work: Work) -> Model:
        """The model as an ONNX file with quantized products."""
        if work.calibration is None:
            raise NotApplicable(f"needs {Fact.CALIBRATION.value}")
        plain = onnx_graph.to_onnx(model, work)
        kept = kept_layers(model, work, self.keep)

        def operators(file: Path) -> list[str]:
            return kept_operators(onnx_graph.layers_of(file, model) if kept else {}, kept, "ONNX")

        made = onnx_graph.rewritten(
            plain, work, str(self), lambda path: self._quantize(Path(plain.program), path, work, operators)
        )
        return with_quantized(made, onnx_graph.integer_layers(Path(made.program), Path(plain.program), model), kept)

    def _quantize(self, plain: Path, path: Path, work: Work, kept: Callable[[Path], list[str]]) -> None:
        onnx_graph.require("onnxruntime", "onnx", self.name())
        import onnx

        with onnx_graph.quiet():
            from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

            prepared = onnx_graph.prepared(plain, path.with_name("prepared.onnx"))
            graph = onnx.load(str(prepared), load_external_data=False).graph
            products = {node.name for node in graph.node if node.op_type in onnx_graph.PRODUCTS}
            excluded = kept(prepared)
            if not products.difference(excluded):
                but = " but those that stay in float" if products else ""
                raise NotApplicable(f"the model has no convolution or matrix product to quantize{but}")
            quantize_static(
                str(prepared),
                str(path),
                _reader([value.name for value in graph.input], work),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(onnx_graph.PRODUCTS) if self.products_only else None,
                nodes_to_exclude=excluded,
                per_channel=True,
                reduce_range=self.reduce_range,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method={
                    "minmax": CalibrationMethod.MinMax,
                    "entropy": CalibrationMethod.Entropy,
                    "percentile": CalibrationMethod.Percentile,
                }[self.method],
                extra_options={"MatMulConstBOnly": self.products_only},
            )


def _reader(names: list[str], work: Work) -> Any:
    """What ONNX Runtime reads calibration calls from: dicts from input name to array."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.calls = _feeds(names, work)

        def get_next(self) -> Any:
            return next(self.calls, None)

    return Reader()


def _feeds(names: list[str], work: Work) -> Iterator[dict[str, Any]]:
    for leaves in first_calls(work, MOST_SAMPLES):
        yield {name: as_numpy(leaves[_position(name, order)]) for order, name in enumerate(names)}


def _position(name: str, order: int) -> int:
    """Which flat input a graph's input is: the exporter may drop unused ones, and names the others leaves_0, ..."""
    number = name.removeprefix("leaves_")
    return int(number) if number.isdigit() and name != number else order
