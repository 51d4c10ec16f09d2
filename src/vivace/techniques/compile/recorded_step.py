"""Runs the operators of a step, forward and backward, from a recording: no module, no autograd, no bookkeeping."""

from __future__ import annotations

import dataclasses

from vivace.core.facts import Fact
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.training.recording import RecordedGradients, computed_by, usual_of


@dataclasses.dataclass(frozen=True)
class RecordedStep(Technique):
    """The same operators in the same order, recorded once for each shape of batch and then played back.

    What autograd and Python cost for each operator is as much as small operators themselves. Recording takes some
    hundredths of a second and compiles nothing, so it pays from a few hundred steps on. Raises NotApplicable, at the
    first batch, where a step depends on values or on chance other than PyTorch's.

    Source: Reed et al., torch.fx: Practical Program Capture and Transformation for Deep Learning in Python, MLSys 2022
    (arXiv:2112.08429).

    >>> RecordedStep.name()
    'recorded-step'
    """

    stage = Stage.COMPILE
    family = Family.SYSTEM
    effect = Effect.EXACT
    needs = frozenset(
        {Fact.TRAINING, Fact.UNCOMPILED, Fact.WHOLE_BATCH, Fact.UNSCALED_LOSS, Fact.WHOLE_LAYERS, Fact.WHOLE_CHAIN}
    )
    breaks = frozenset({Fact.UNCOMPILED, Fact.AUTOGRAD})
    source = "Reed et al., torch.fx, MLSys 2022, arXiv:2112.08429"

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig whose gradients come from recordings."""
        recorded = RecordedGradients(rig, usual_of(rig, job))
        return computed_by(recorded, rig, recorded.look)
