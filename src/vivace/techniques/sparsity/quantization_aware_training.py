"""Wins back quality before int8: a short training of the float weights with their products rounded as int8 will."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from vivace.core.cost import Cost
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.techniques.fine_tuning import check_steps, retrained


@dataclasses.dataclass(frozen=True)
class QuantizationAwareTraining(Technique):
    """Weights trained for a short while to lose less in int8, at most `steps` and half of the time of building.

    The model learns the original's own answers as `recovery` does, from the calibrate part of the data alone, with the
    operands of every product rounded to 8 bits and back. Its weights stay float32; a later technique of the plan
    quantizes them with scales of its own. Weights that were pruned stay zero. `reduce_range` rounds weights to 7 bits,
    as int8 keeps them on processors without int8 dot products, whose 16-bit sums could overflow. Raises NotApplicable,
    with the losses, when the loss becomes NaN or does not fall; UsageError unless steps is a whole number from 1 up.

    Source: Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
    CVPR 2018 (arXiv:1712.05877), section 3; Hinton et al. 2015 (arXiv:1503.02531) for learning from the original.

    >>> str(QuantizationAwareTraining())
    'quantization-aware-training'
    """

    steps: int = 1000
    reduce_range: bool = False

    stage = Stage.SPARSITY
    """After what takes weights away, and before what quantizes the rest."""
    family = Family.ALGORITHM
    effect = Effect.CHANGED
    needs = frozenset({Fact.CALIBRATION, Fact.TORCH_GRAPH, Fact.FLOAT32, Fact.UNQUANTIZED, Fact.UNCOMPILED})
    on_without = (("reduce_range", Fact.INT8_INSTRUCTIONS),)
    source = "Jacob et al., CVPR 2018, arXiv:1712.05877; Hinton et al. 2015, arXiv:1503.02531"
    build_seconds = 5.0
    mends = True

    def __post_init__(self) -> None:
        check_steps(self.name(), self.steps)

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """Weights in 7 bits only where the processor has no int8 dot products."""
        yield cls(**cls.here(machine))

    def idle_beside(self, others: Sequence[Technique]) -> str | None:
        """It has nothing to do where no product becomes int8, and beside another training."""
        trains = next((t for t in others if t.mends), None)
        if trains is not None:
            return f"{self} and {trains} are both a training of the same weights"
        if not any(t.stage is Stage.PRECISION and t.rewrite(_FLOAT).precision == "int8" for t in others):
            return f"{self} needs a later technique that computes products in int8 (add nncf-static-int8 or another)"
        return None

    def apply(self, model: Model, work: Work) -> Model:
        """The model with trained weights, still in float32."""
        return retrained(model, work, str(self), self.steps, levels=64 if self.reduce_range else 127)


_FLOAT = Cost(flops=1.0, weight_bytes=1.0, activation_bytes=1.0, operators=1)
