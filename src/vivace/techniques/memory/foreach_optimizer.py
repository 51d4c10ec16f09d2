"""Lets the optimizer do each operator of its update once for all parameters."""

from __future__ import annotations

import dataclasses

import torch

from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig


@dataclasses.dataclass(frozen=True)
class ForeachOptimizer(Technique):
    """The optimizer's operators over lists of parameters (`foreach`): the same arithmetic, called a dozen times a step.

    For optimizers without a fused kernel; PyTorch switches it on by itself on CUDA devices only. Raises NotApplicable
    for optimizers that have no such way, and where the job has switched it, or a fused kernel, on already; also where
    it would overwrite gradients (Nesterov's momentum), or cannot take the learning rate (a tensor).

    Source: https://docs.pytorch.org/docs/stable/optim.html (foreach and fused), read in November 2026.

    >>> ForeachOptimizer.name()
    'foreach-optimizer'
    """

    stage = Stage.MEMORY
    family = Family.ALGORITHM
    effect = Effect.ROUNDED
    needs = frozenset({Fact.TRAINING, Fact.PLAIN_OPTIMIZER})
    breaks = frozenset({Fact.PLAIN_OPTIMIZER})
    source = "https://docs.pytorch.org/docs/stable/optim.html"

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig with its optimizer told to go over lists."""
        groups = rig.optimizer.param_groups
        if not all("foreach" in group for group in groups):
            raise NotApplicable(f"{type(rig.optimizer).__name__} has no such way")
        if any(group.get("fused") or group["foreach"] for group in groups):
            raise NotApplicable("the job has switched it, or a fused kernel, on already")
        if any(group.get("differentiable") for group in groups):
            raise NotApplicable("the optimizer is differentiable, which lists are not")
        if any(torch.is_tensor(group.get("lr")) and not group.get("capturable") for group in groups):
            raise NotApplicable("the learning rate is a tensor, which lists take only from a capturable optimizer")
        if any(group.get("nesterov") and "momentum" in group for group in groups):
            raise NotApplicable("Nesterov's momentum over lists is added into the gradients themselves")
        for group in groups:
            group["foreach"] = True
        return rig
