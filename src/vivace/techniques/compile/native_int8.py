"""The whole network as one C++ program of its own, its products in 8-bit integers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from torch.fx import Node

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.runtimes.graphs.same_layers import weights_of
from vivace.techniques.compile.written import NEEDS, SOURCE, nothing_to_do, rewritten, to_be_written
from vivace.techniques.graph import RECURRENT
from vivace.techniques.sensitivity import check_keep, kept_counts, kept_layers, with_quantized

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
    `native-program` does, and when no layer is left for int8.

    Source: Jacob et al., CVPR 2018 (arXiv:1712.05877); rows as Dettmers et al., NeurIPS 2022 (arXiv:2208.07339).

    >>> str(NativeInt8(keep=2))
    'native-int8(keep=2)'
    """

    keep: int = 0

    stage = Stage.COMPILE
    family = Family.ALGORITHM
    effect = Effect.CHANGED
    needs = NEEDS | {Fact.FLOAT32, Fact.INT8_PRODUCTS}
    gives = frozenset({Fact.WRITTEN})
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
        """More and more layers in float, up to all but one."""
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
        kept = kept_layers(model, work, self.keep)
        made = to_be_written(model, str(self), products="int8", kept=",".join(sorted(kept)), others="bfloat16")
        nodes = list(model.program.graph.nodes)
        constant = weights_of(model.program).keys() - kept
        layers = [node.name for node in nodes if node.name in constant and not _is_depthwise(node)]
        if not layers and not any(node.target in RECURRENT for node in nodes):
            raise NotApplicable("no layer is left to compute in int8")
        return with_quantized(made, layers, kept)


def _is_depthwise(node: Node) -> bool:
    """Whether a product is a convolution of each channel alone, whose code is in float32."""
    weight: Any = node.args[1]
    groups = node.args[6] if len(node.args) > 6 else 1
    return type(groups) is int and groups > 1 and weight.meta["val"].shape[1] == 1
