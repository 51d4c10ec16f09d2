"""An OpenVINO model whose weights are kept in 8 or 4 bits, compressed by NNCF without data."""

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
from vivace.runtimes import onnx_graph, openvino_graph, openvino_session
from vivace.runtimes.settings.signal_stack import kept_signal_stack
from vivace.techniques.precision.nncf_calls import INTEGERS, import_nncf, integer_layers, kept_random_state
from vivace.techniques.sensitivity import kept_layers, kept_operators, with_quantized

BITS = (4, 8)
SCALE_BITS = 16


@dataclasses.dataclass(frozen=True)
class OpenvinoWeightOnly(Technique):
    """Weights in integers of `bits` (8 or 4), widened inside OpenVINO's kernels; needs no data.

    With 8 bits one scale an output channel. With 4 bits one scale (float16) for each `group_size` inputs of a channel,
    0 for one a channel; where `group_size` does not divide a layer's inputs NNCF takes the largest smaller power of two
    from 32 up, or 8 bits; embeddings, convolutions and the last layer are kept in 8 bits. `symmetric` weights have no
    zero point. OpenVINO would by itself round activations to int8 inside such a layer: it is told not to
    (`openvino-dynamic-int8` does). Layers that the user named stay in float. Raises NotApplicable when nothing was
    compressed (NNCF leaves small constants alone) or a named layer is not found again, and MissingExtra without the
    packages; UsageError for other bits, a negative group, or a group with 8 bits.

    Source: https://docs.openvino.ai/2026/openvino-workflow/model-optimization-guide/weight-compression.html; Dettmers
    and Zettlemoyer, The case for 4-bit precision, ICML 2023 (arXiv:2212.09720), section 2, on groups.

    >>> str(OpenvinoWeightOnly(bits=4, group_size=64))
    'openvino-weight-only(bits=4, group_size=64)'
    """

    bits: int = 8
    group_size: int = 0
    symmetric: bool = True

    stage = Stage.PRECISION
    family = Family.ALGORITHM
    effect = Effect.CHANGED
    needs = frozenset({Fact.OPENVINO_READY, Fact.UNQUANTIZED, Fact.UNCOMPILED, Fact.ON_CPU})
    breaks = frozenset({Fact.TORCH_GRAPH, Fact.ONNX_READY, Fact.RUNNABLE, Fact.UNQUANTIZED, Fact.FLOAT32})
    source = "https://docs.openvino.ai/2026/openvino-workflow/model-optimization-guide/weight-compression.html"
    build_seconds = 4.0
    packages = ("openvino", "nncf")
    extra = "openvino"

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise UsageError(f"openvino-weight-only received bits={self.bits!r}; allowed are 4 and 8")
        if self.group_size < 0 or (self.group_size and self.bits == 8):
            raise UsageError(
                f"openvino-weight-only received group_size={self.group_size} with bits={self.bits}; allowed are 0 (one "
                "scale a channel), and a positive group with 4 bits"
            )

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """8 bits first, then 4 bits in groups of 64."""
        yield cls(bits=8)
        yield cls(bits=4, group_size=64)

    def rewrite(self, cost: Cost) -> Cost:
        """Fewer bytes of weights; products at somewhat less than the rate of float32."""
        bits = self.bits + (SCALE_BITS / self.group_size if self.group_size else 0)
        before = 32 if cost.precision == "f32" else 16
        return cost.replace(weight_bytes=cost.weight_bytes * bits / before, efficiency=cost.efficiency * 0.9)

    def apply(self, model: Model, work: Work) -> Model:
        """The model as an OpenVINO graph with compressed weights."""
        plain = openvino_graph.to_openvino(model, work)
        kept = kept_layers(model, work)

        def compressed() -> Any:
            found = openvino_graph.layers_of(plain, model) if kept else {}
            operators = kept_operators(found, kept, "OpenVINO")
            with kept_random_state():
                return self._compress(plain, operators)

        made = openvino_graph.rewritten(plain, work, str(self), compressed)
        made = made.replace(settings=made.settings.with_options(**{openvino_session.ACTIVATION_GROUP: 0}))
        return with_quantized(made, integer_layers(made, model), kept)

    def _compress(self, plain: Model, kept: list[str]) -> Any:
        openvino, nncf = openvino_graph.import_openvino(), import_nncf(self.name())
        graph = openvino.Core().read_model(str(plain.program))
        mode = nncf.CompressWeightsMode(f"int{self.bits}_{'sym' if self.symmetric else 'asym'}")
        grouped = {"group_size": self.group_size or -1, "advanced_parameters": _adjusted_groups(nncf)}
        try:
            with onnx_graph.quiet(), kept_signal_stack():
                compressed = nncf.compress_weights(
                    graph,
                    mode=mode,
                    ignored_scope=nncf.IgnoredScope(names=kept),
                    **(grouped if self.bits == 4 else {}),
                )
        except Exception as error:  # NNCF raises errors of its own and of OpenVINO's
            told = " ".join(str(error).split())[:400]
            raise NotApplicable(f"NNCF cannot compress the weights: {type(error).__name__}: {told}") from error
        if not any(_is_compressed(op) for op in compressed.get_ops()):
            raise NotApplicable("NNCF found no weights to compress")
        return compressed


def _adjusted_groups(nncf: Any) -> Any:
    """A layer whose inputs the group does not divide gets a smaller group instead of stopping everything."""
    return nncf.AdvancedCompressionParameters(group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST)


def _is_compressed(op: Any) -> bool:
    """Whether an operator is a constant of 4- or 8-bit integers with more than one dimension."""
    is_constant = op.get_type_name() == "Constant"
    return is_constant and op.get_element_type().get_type_name() in INTEGERS and len(op.get_output_shape(0)) > 1
