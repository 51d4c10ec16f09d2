"""An OpenVINO model in 8-bit integers, quantized by NNCF with calibration data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable, UsageError
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.data import samples
from vivace.runtimes import onnx_graph, openvino_graph
from vivace.runtimes.program import as_numpy
from vivace.techniques.precision.nncf_calls import import_nncf, kept_random_state

PRESETS = ("performance", "mixed")
MOST_CALLS = 300


@dataclasses.dataclass(frozen=True)
class NncfStaticInt8(Technique):
    """Weights and activations in int8, with fixed scales from calibration calls, and their bias corrected.

    `preset` performance quantizes activations symmetrically, mixed asymmetrically (more exact when one-sided).
    `transformer` tells NNCF the kind of model: it then smooths activations (SmoothQuant) and leaves sensitive
    operators of attention in float. At most 300 calls are read. Raises NotApplicable without calibration data or when
    nothing was quantized, MissingExtra without the packages, UsageError for an unknown preset.

    Source: https://github.com/openvinotoolkit/nncf, post-training quantization; Xiao et al., SmoothQuant, ICML 2023
    (arXiv:2211.10438); Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019
    (arXiv:1906.04721), section 4.2.

    >>> NncfStaticInt8.name()
    'nncf-static-int8'
    """

    preset: str = "mixed"
    transformer: bool = False

    stage = Stage.PRECISION
    family = Family.ALGORITHM
    effect = Effect.CHANGED
    needs = frozenset(
        {Fact.OPENVINO_READY, Fact.UNQUANTIZED, Fact.FLOAT32, Fact.UNCOMPILED, Fact.ON_CPU, Fact.CALIBRATION}
    )
    breaks = frozenset({Fact.TORCH_GRAPH, Fact.ONNX_READY, Fact.RUNNABLE, Fact.UNQUANTIZED, Fact.FLOAT32})
    source = "https://github.com/openvinotoolkit/nncf; Xiao et al., ICML 2023, arXiv:2211.10438"
    build_seconds = 6.0
    packages = ("openvino", "nncf")
    extra = "openvino"

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise UsageError(f"nncf-static-int8 received preset={self.preset!r}; allowed are {', '.join(PRESETS)}")

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """For a transformer where there is attention; asymmetric activations first."""
        transformer = Fact.HAS_ATTENTION in work.facts
        yield cls("mixed", transformer)
        yield cls("performance", transformer)

    def rewrite(self, cost: Cost) -> Cost:
        """A quarter of the bytes, int8 products at the best rate of all int8 paths here."""
        return cost.replace(
            precision="int8",
            weight_bytes=cost.weight_bytes / 4,
            activation_bytes=cost.activation_bytes * 0.35,
            efficiency=cost.efficiency * 0.7,
        )

    def apply(self, model: Model, work: Work) -> Model:
        """The model as a quantized OpenVINO graph."""
        if work.calibration is None:
            raise NotApplicable(f"needs {Fact.CALIBRATION.value}")
        plain = openvino_graph.to_openvino(model, work)
        lineage = (*model.lineage, str(self))
        folder = onnx_graph.conversion_folder(work, "openvino", plain.replace(lineage=lineage))
        if not (folder / "model.xml").is_file():
            openvino_graph.save_graph(self._quantized(plain, work), folder)
        return plain.replace(program=folder / "model.xml", lineage=lineage)

    def _quantized(self, plain: Model, work: Work) -> Any:
        with kept_random_state():
            return self._quantize(plain, work)

    def _quantize(self, plain: Model, work: Work) -> Any:
        openvino, nncf = openvino_graph.import_openvino(), import_nncf(self.name())
        graph = openvino.Core().read_model(str(plain.program))
        feeds = list(_feeds(graph, work))
        try:
            with onnx_graph.quiet():
                quantized = nncf.quantize(
                    graph,
                    nncf.Dataset(feeds),
                    preset=nncf.QuantizationPreset(self.preset),
                    model_type=nncf.ModelType.TRANSFORMER if self.transformer else None,
                    subset_size=len(feeds),
                    fast_bias_correction=True,
                )
        except Exception as error:  # NNCF raises errors of its own and of OpenVINO's
            told = " ".join(str(error).split())[:400]
            raise NotApplicable(f"NNCF cannot quantize the model: {type(error).__name__}: {told}") from error
        if not any(op.get_type_name() == "FakeQuantize" for op in quantized.get_ops()):
            raise NotApplicable("NNCF found nothing to quantize")
        return quantized


def _feeds(graph: Any, work: Work) -> Iterator[list[Any]]:
    """Calibration calls as arrays in the order of the graph's inputs."""
    assert work.calibration is not None
    calls = samples.read(work.calibration)
    positions = [_position(port, order) for order, port in enumerate(graph.inputs)]
    for index in range(min(len(calls), MOST_CALLS)):
        leaves = calls[index]
        yield [as_numpy(leaves[position]) for position in positions]


def _position(port: Any, order: int) -> int:
    """Which flat input an input is: converters may drop unused ones, and name the others leaves_0, ..."""
    numbers = [name.removeprefix("leaves_") for name in port.get_names() if name.startswith("leaves_")]
    return int(numbers[0]) if numbers and numbers[0].isdigit() else order
