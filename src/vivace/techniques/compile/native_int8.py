"""The whole network as one C++ program of its own, its products in 8-bit integers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from vivace.core.cost import Cost
from vivace.core.facts import Fact
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.techniques.compile.written import NEEDS, SOURCE, nothing_to_do, rewritten, to_be_written
from vivace.techniques.sensitivity import check_keep, kept_counts, worst_layers

KEPT_COSTS = 0.05
"""What a layer that stays in float is guessed to cost, as a share of the whole time."""


@dataclasses.dataclass(frozen=True)
class NativeInt8(Technique):
    """As `native-program`, with linear layers, convolutions and LSTMs in int8: weights with a step for each output
    channel, activations with one for each row (linear layers) or sample (convolutions), found in every call or given by
    the bounds (ReLU6) that a depthwise convolution ends in, so that it needs no data; what lies between products stays
    in float32, attention's own products too. Weights have 255 steps, but 129 on processors without int8 dot products,
    whose 16-bit sums could overflow.

    `keep` is how many layers stay in float (bfloat16 where the processor has it), beside those that the user named:
    the ones that cost the output most for the time that int8 saves there (`techniques.sensitivity`), which takes
    calibration data. Calls of other shapes are answered in float32, operator by operator. Raises NotApplicable as
    `native-program` does.

    Source: Jacob et al., CVPR 2018 (arXiv:1712.05877); rows as Dettmers et al., NeurIPS 2022 (arXiv:2208.07339).

    >>> str(NativeInt8(keep=2))
    'native-int8(keep=2)'
    """

    keep: int = 0

    stage = Stage.COMPILE
    family = Family.ALGORITHM
    effect = Effect.CHANGED
    needs = NEEDS | {Fact.FLOAT32, Fact.INT8_PRODUCTS}
    breaks = frozenset(
        {
            *(Fact.UNCOMPILED, Fact.TORCH_GRAPH, Fact.ONNX_READY, Fact.OPENVINO_READY),
            *(Fact.FLOAT32, Fact.UNQUANTIZED),
        }
    )
    build_seconds = 4.0
    source = f"{SOURCE}; Jacob et al., CVPR 2018, arXiv:1712.05877"

    def __post_init__(self) -> None:
        check_keep(self.name(), self.keep)

    def gentler(self, work: Work) -> Iterator[Technique]:
        """More and more layers in float, up to half of them."""
        return (dataclasses.replace(self, keep=count) for count in kept_counts(work, self.keep))

    def idle_beside(self, others: Sequence[Technique]) -> str | None:
        """Why a plan with these repeats one without: it chooses how tensors lie, and folds normalizations."""
        return nothing_to_do(others)

    def rewrite(self, cost: Cost) -> Cost:
        """A quarter of the weights, products at the ceiling of int8, less for each kept layer."""
        plain = rewritten(cost)
        return plain.replace(
            precision="int8",
            weight_bytes=cost.weight_bytes / 4,
            efficiency=plain.efficiency * 0.7 / (1 + KEPT_COSTS * self.keep),
        )

    def apply(self, model: Model, work: Work) -> Model:
        """The model, to be written out and compiled when it is loaded."""
        kept = sorted({*worst_layers(model, work, self.keep), *work.keep})
        return to_be_written(model, str(self), products="int8", kept=",".join(kept), others="bfloat16")
