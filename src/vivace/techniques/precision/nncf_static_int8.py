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
from vivace.runtimes import onnx_graph, openvino_graph
from vivace.runtimes.program import as_numpy
from vivace.runtimes.settings.signal_stack import kept_signal_stack
from vivace.techniques.calibration import first_calls
from vivace.techniques.precision.nncf_calls import import_nncf, integer_layers, kept_random_state
from vivace.techniques.sensitivity import check_keep, kept_counts, kept_layers, kept_operators, with_quantized

PRESETS = ("performance", "mixed")
MOST_SAMPLES = 300
"""As many as NNCF takes by default."""
ASYMMETRIC_COSTS = 0.15
"""What asymmetric activations cost: a MobileNet was 0.87 times as fast with them, measured for this project in 2026."""
KEPT_COSTS = 0.05
"""What a layer that stays in float is guessed to cost, as a share of the whole time."""


@dataclasses.dataclass(frozen=True)
class NncfStaticInt8(Technique):
    """Weights and activations in int8, with fixed scales from calibration calls, and their bias corrected.

    `preset` performance, NNCF's own default, quantizes activations symmetrically; mixed asymmetrically, which is more
    exact when they are one-sided, and slower.
    `transformer` tells NNCF the kind of model: it then smooths activations (SmoothQuant) and leaves sensitive
    operators of attention in float. `keep` is how many layers stay in float: those that cost the output most for the
    time that int8 saves there (`techniques.sensitivity`), beside the ones that the user named. `reduce_range` keeps
    weights to 7 bits, for processors without int8 dot products, whose 16-bit sums could overflow. About 300 samples
    are read. Raises NotApplicable without calibration data or when nothing was quantized, MissingExtra without the
    packages, UsageError for an unknown preset.

    Source: https://github.com/openvinotoolkit/nncf, post-training quantization; Xiao et al., SmoothQuant, ICML 2023
    (arXiv:2211.10438); Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019
    (arXiv:1906.04721), section 4.2.

    >>> NncfStaticInt8.name()
    'nncf-static-int8'
    """

    preset: str = "performance"
    transformer: bool = False
    keep: int = 0
    reduce_range: bool = False

    stage = Stage.PRECISION
    family = Family.ALGORITHM
    effect = Effect.CHANGED
    needs = frozenset(
        {Fact.OPENVINO_READY, Fact.UNQUANTIZED, Fact.FLOAT32, Fact.UNCOMPILED, Fact.ON_CPU, Fact.CALIBRATION}
    )
    breaks = frozenset({Fact.TORCH_GRAPH, Fact.ONNX_READY, Fact.RUNNABLE, Fact.UNQUANTIZED, Fact.FLOAT32})
    on_without = (("reduce_range", Fact.INT8_INSTRUCTIONS),)
    source = "https://github.com/openvinotoolkit/nncf; Xiao et al., ICML 2023, arXiv:2211.10438"
    build_seconds = 6.0
    packages = ("openvino", "nncf")
    extra = "openvino"

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise UsageError(f"nncf-static-int8 received preset={self.preset!r}; allowed are {', '.join(PRESETS)}")
        check_keep(self.name(), self.keep)

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """For a transformer where there is attention; symmetric activations first."""
        transformer = Fact.HAS_ATTENTION in work.facts
        here = cls.here(machine)
        yield cls("performance", transformer, **here)
        yield cls("mixed", transformer, **here)

    def gentler(self, work: Work) -> Iterator[Technique]:
        """Asymmetric activations; then more and more layers in float too, up to all but one."""
        mixed = dataclasses.replace(self, preset="mixed")
        if mixed != self:
            yield mixed
        yield from (dataclasses.replace(mixed, keep=count) for count in kept_counts(work, self.keep))

    def rewrite(self, cost: Cost) -> Cost:
        """A quarter of the bytes, int8 products at the best rate of all int8 paths here; less for asymmetric
        activations and for each kept layer. Nothing where most of the work is in recurrent cells, which stay in
        float."""
        if cost.mostly_recurrent:
            return cost
        slower = 1 + KEPT_COSTS * self.keep + (ASYMMETRIC_COSTS if self.preset == "mixed" else 0.0)
        return cost.replace(
            precision="int8",
            weight_bytes=cost.weight_bytes / 4,
            activation_bytes=cost.activation_bytes * 0.35,
            efficiency=cost.efficiency * 0.7 / slower,
        )

    def apply(self, model: Model, work: Work) -> Model:
        """The model as a quantized OpenVINO graph."""
        if work.calibration is None:
            raise NotApplicable(f"needs {Fact.CALIBRATION.value}")
        plain = openvino_graph.to_openvino(model, work)
        kept = kept_layers(model, work, self.keep)

        def quantized() -> Any:
            found = openvino_graph.layers_of(plain, model) if kept else {}
            return self._quantized(plain, work, kept_operators(found, kept, "OpenVINO"))

        made = openvino_graph.rewritten(plain, work, str(self), quantized)
        return with_quantized(made, integer_layers(made, model), kept)

    def _quantized(self, plain: Model, work: Work, kept: list[str]) -> Any:
        with kept_random_state():
            return self._quantize(plain, work, kept)

    def _quantize(self, plain: Model, work: Work, kept: list[str]) -> Any:
        openvino, nncf = openvino_graph.import_openvino(), import_nncf(self.name())
        graph = openvino.Core().read_model(str(plain.program))
        feeds = list(_feeds(graph, work))
        halved = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)
        try:
            with onnx_graph.quiet(), kept_signal_stack():
                quantized = nncf.quantize(
                    graph,
                    nncf.Dataset(feeds),
                    preset=nncf.QuantizationPreset(self.preset),
                    model_type=nncf.ModelType.TRANSFORMER if self.transformer else None,
                    ignored_scope=nncf.IgnoredScope(names=kept),
                    subset_size=len(feeds),
                    fast_bias_correction=True,
                    advanced_parameters=halved if self.reduce_range else None,
                )
        except Exception as error:  # NNCF raises errors of its own and of OpenVINO's
            told = " ".join(str(error).split())[:400]
            raise NotApplicable(f"NNCF cannot quantize the model: {type(error).__name__}: {told}") from error
        if not any(op.get_type_name() == "FakeQuantize" for op in quantized.get_ops()):
            raise NotApplicable("NNCF found nothing to quantize")
        return quantized


def _feeds(graph: Any, work: Work) -> Iterator[list[Any]]:
    """Calibration calls as arrays in the order of the graph's inputs."""
    positions = [_position(port, order) for order, port in enumerate(graph.inputs)]
    for leaves in first_calls(work, MOST_SAMPLES):
        yield [as_numpy(leaves[position]) for position in positions]


def _position(port: Any, order: int) -> int:
    """Which flat input an input is: converters may drop unused ones, and name the others leaves_0, ..."""
    numbers = [name.removeprefix("leaves_") for name in port.get_names() if name.startswith("leaves_")]
    return int(numbers[0]) if numbers and numbers[0].isdigit() else order
