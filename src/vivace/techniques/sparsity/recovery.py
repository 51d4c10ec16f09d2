"""Wins back quality after pruning: a short training of the weights that are left."""

from __future__ import annotations

import dataclasses

from vivace.core.facts import Fact
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.techniques.fine_tuning import check_steps, retrained


@dataclasses.dataclass(frozen=True)
class Recovery(Technique):
    """Pruned weights trained for a short while, at most `steps` of AdamW and half of the time that building may take.

    The pruned model learns the original's own answers to the calibrate part of the data and to mixtures of its samples,
    which needs no labels; a loss in the workload, with the part's labels, takes half of the steps.
    The select and confirm parts are never seen. What was pruned stays pruned: shapes stay, and zeros stay zero. A fifth
    of the calls is held out of training, and the weights with the least loss there are kept. The name sorts after those
    of the pruning techniques and before `sparse-kernels`, and facts refuse any other order. Raises NotApplicable, with
    the losses, when the loss becomes NaN or does not fall; UsageError unless steps is a whole number from 1 up.

    Source: Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015 (arXiv:1503.02531), section 2;
    Han et al., Learning both Weights and Connections, NeurIPS 2015 (arXiv:1506.02626), section 3.2, on retraining.

    >>> str(Recovery())
    'recovery'
    """

    steps: int = 1000

    stage = Stage.SPARSITY
    family = Family.ALGORITHM
    effect = Effect.CHANGED
    needs = frozenset({Fact.PRUNED, Fact.CALIBRATION, Fact.TORCH_GRAPH, Fact.FLOAT32, Fact.UNCOMPILED})
    source = "Hinton et al. 2015, arXiv:1503.02531; Han et al., NeurIPS 2015, arXiv:1506.02626"
    build_seconds = 5.0
    mends = True

    def __post_init__(self) -> None:
        check_steps(self.name(), self.steps)

    def apply(self, model: Model, work: Work) -> Model:
        """The model with trained weights."""
        return retrained(model, work, str(self), self.steps)
