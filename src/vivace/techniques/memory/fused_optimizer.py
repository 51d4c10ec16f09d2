"""Lets the optimizer update all parameters in one kernel, not in a dozen operators for each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.training.fused_update import FusedStep, FusedUpdate, has_kernel
from vivace.training.rig import sparse_weights

KINDS = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad)


@dataclasses.dataclass(frozen=True)
class FusedOptimizer(Technique):
    """The optimizer's own fused kernel: weights, gradients and both moments are read and written once a step.

    Adam, AdamW and SGD have their kernel called directly, with lists that are kept from step to step; the optimizer's
    state stays its own. Raises NotApplicable for optimizers that have none, where the job has switched it on, and for
    weights that no fused kernel takes: complex ones, and those with sparse gradients.

    Source: https://docs.pytorch.org/docs/stable/optim.html (foreach and fused), read in November 2026.

    >>> FusedOptimizer.name()
    'fused-optimizer'
    """

    stage = Stage.MEMORY
    family = Family.ALGORITHM
    effect = Effect.ROUNDED
    needs = frozenset({Fact.TRAINING, Fact.PLAIN_OPTIMIZER})
    breaks = frozenset({Fact.PLAIN_OPTIMIZER})
    source = "https://docs.pytorch.org/docs/stable/optim.html"

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig with its optimizer told to use its fused kernel."""
        optimizer = rig.optimizer
        if type(optimizer) not in KINDS:
            raise NotApplicable(f"{type(optimizer).__name__} has no fused kernel that is known here")
        if any(_steps(state) for state in optimizer.state.values()):
            raise NotApplicable("the optimizer has taken steps already")
        groups = optimizer.param_groups
        if all(group.get("fused") for group in groups):
            raise NotApplicable("the job has switched it on already")
        if any(group.get("differentiable") or group.get("capturable") for group in groups):
            raise NotApplicable("the optimizer is differentiable or capturable, which no fused kernel is")
        _check_numbers(rig)
        for group in groups:
            group["fused"], group["foreach"] = True, False
        names = {id(one): name for name, one in rig.model.named_parameters()}
        kind = FusedUpdate if has_kernel(optimizer) else FusedStep
        return rig.replace(update=kind(optimizer, rig.update, names))


def _steps(state: Mapping[str, Any]) -> float:
    """How many steps a parameter's state has seen. Adagrad makes its state before the first one."""
    return float(state["step"]) if "step" in state else float(bool(state))


def _check_numbers(rig: Rig) -> None:
    wrong = [name for name, one in rig.model.named_parameters() if one.requires_grad and not one.is_floating_point()]
    if wrong:
        raise NotApplicable(f"{wrong[0]} holds complex numbers, which no fused kernel takes")
    sparse = sparse_weights(rig.model)
    if sparse:
        raise NotApplicable(f"{sparse[0]} has sparse gradients (sparse=True), which no fused kernel takes")
