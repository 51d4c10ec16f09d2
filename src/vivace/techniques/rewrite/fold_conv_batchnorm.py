"""Folds batch normalization into the convolution before it, so that it costs nothing at inference."""

from __future__ import annotations

import dataclasses

import torch

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.techniques.graph import GraphEdit, torch_program
from vivace.techniques.rewrite.batchnorm import fold_batchnorms

aten = torch.ops.aten
CONVOLUTIONS = (
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv3d.default,
    aten.conv1d.padding,
    aten.conv2d.padding,
    aten.conv3d.padding,
)


@dataclasses.dataclass(frozen=True)
class FoldConvBatchnorm(Technique):
    """Fold batch normalization, in inference mode, into the convolution before it.

    The new weights are computed in float64 and rounded once. A convolution whose weights or output are used elsewhere
    is left alone. Raises NotApplicable when nothing can be folded.

    Source: Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
    CVPR 2018 (arXiv:1712.05877), section 3.2, equation 14.

    >>> FoldConvBatchnorm.name()
    'fold-conv-batchnorm'
    """

    stage = Stage.REWRITE
    family = Family.ALGORITHM
    effect = Effect.ROUNDED
    needs = frozenset({Fact.TORCH_GRAPH, Fact.HAS_CONV_BATCHNORM})
    breaks = frozenset({Fact.HAS_CONV_BATCHNORM})
    source = "Jacob et al., CVPR 2018, arXiv:1712.05877, section 3.2, equation 14"

    def rewrite(self, cost: Cost) -> Cost:
        """One of about three operators of a convolutional network goes, with its pass over the activations."""
        return cost.replace(operators=max(1, cost.operators * 3 // 4), activation_bytes=cost.activation_bytes * 0.75)

    def apply(self, model: Model, work: Work) -> Model:
        """The model without the batch normalizations that could be folded."""
        edit = GraphEdit(torch_program(model))
        fused = fold_batchnorms(edit, CONVOLUTIONS, lambda product: True)
        if not fused:
            raise NotApplicable("no convolution of its own weights is followed by batch normalization alone")
        return model.replace(program=edit.close(), lineage=(*model.lineage, str(self)), fused=(*model.fused, *fused))
