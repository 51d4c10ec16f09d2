"""Folds batch normalization into the linear layer before it, so that it costs nothing at inference."""

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


@dataclasses.dataclass(frozen=True)
class FoldLinearBatchnorm(Technique):
    """Fold batch normalization, in inference mode, into the linear layer before it.

    The new weights are computed in float64 and rounded once. A layer whose weights or output are used elsewhere is left
    alone, and so is one with more than one dimension of samples, where the normalization runs over another dimension
    than the layer's outputs. Raises NotApplicable when nothing can be folded.

    Source: Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
    CVPR 2018 (arXiv:1712.05877), section 3.2, equation 14.

    >>> FoldLinearBatchnorm.name()
    'fold-linear-batchnorm'
    """

    stage = Stage.REWRITE
    family = Family.ALGORITHM
    effect = Effect.ROUNDED
    needs = frozenset({Fact.TORCH_GRAPH, Fact.HAS_LINEAR_BATCHNORM})
    breaks = frozenset({Fact.HAS_LINEAR_BATCHNORM})
    source = "Jacob et al., CVPR 2018, arXiv:1712.05877, section 3.2, equation 14"

    def rewrite(self, cost: Cost) -> Cost:
        """One of about four operators goes, with its pass over the activations."""
        return cost.replace(operators=max(1, cost.operators * 3 // 4), activation_bytes=cost.activation_bytes * 0.75)

    def apply(self, model: Model, work: Work) -> Model:
        """The model without the batch normalizations that could be folded."""
        edit = GraphEdit(torch_program(model))
        linear = (torch.ops.aten.linear.default,)
        fused = fold_batchnorms(edit, linear, lambda product: product.meta["val"].dim() == 2)
        if not fused:
            raise NotApplicable("no linear layer of its own weights is followed by batch normalization alone")
        return model.replace(program=edit.close(), lineage=(*model.lineage, str(self)), fused=(*model.fused, *fused))
