"""A step of a loop that the user writes, proved while that loop goes on; and the way back to the original's step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from vivace.core.plan import Plan
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.training.checkpoint import KERNELS, Generators, Position
from vivace.training.examine import Examined
from vivace.training.loop import Last, Loop
from vivace.training.proof.later import proved_again
from vivace.training.proof.snapshot import Key, Snapshot, standing
from vivace.training.rig import assemble


def changed_since(rig: Rig, before: Mapping[Key, Any]) -> dict[Key, Any]:
    """What the loop has set beside the step since (`before`: `standing` of the model then): attributes, what learns,
    and which modules are in evaluation mode."""
    now = standing(rig.model) | modes(rig)
    return {key: value for key, value in now.items() if key not in before or before[key] != value}


def modes(rig: Rig) -> dict[Key, Any]:
    """Whether each module trains."""
    return {(name, "training"): module.training for name, module in rig.model.named_modules()}


def proved_by_hand(
    job: Training, plan: Plan, rig: Rig, batch: Any, changed: Mapping[Key, Any], further: int
) -> Examined:
    """What `proved_again` finds of a rig that somebody else's loop drives, from where it stands, on a batch. All is as
    it was afterwards, to the bit, the gradients that lie in the parameters among it. Raises Unproved where nothing can
    be compared."""
    kept = [(one, one.grad, None if one.grad is None else one.grad.clone()) for one in rig.model.parameters()]
    loop = Loop(job, rig, None, "")
    loop.position = Position(0, 0, 1)
    loop.take_up(Last(0, 0, batch, is_placed=False))
    try:
        return proved_again(job, plan, loop, changed, further=further)
    finally:
        with torch.no_grad():
            for parameter, gradient, values in kept:
                if gradient is not None and values is not None:
                    gradient.copy_(values)
                parameter.grad = gradient


def given_back(job: Training, rig: Rig, changed: Mapping[Key, Any]) -> Rig:
    """The original's rig, with the very model, parameters and optimizer that a rig has, as they stand: whoever holds
    these takes the original's steps from now on. The feed and the schedule stay."""
    snapshot, generators = Snapshot(rig, changed, job.loss), Generators.now()
    try:
        fresh = snapshot.into(assemble(job))
        model, own = rig.model, dict(rig.model.named_parameters(remove_duplicate=False))
        for owner, module in fresh.model.named_modules():
            for name in [name for name, value in module._parameters.items() if value is not None]:
                module._parameters[name] = own[f"{owner}.{name}" if owner else name]
        vars(model).clear()
        vars(model).update(vars(fresh.model))
        model.__class__ = type(fresh.model)
        for group, mine in zip(rig.optimizer.param_groups, fresh.optimizer.param_groups, strict=True):
            group.update({name: mine[name] for name in KERNELS if name in mine})
    finally:
        generators.restore()

    def forward(batch: Any) -> torch.Tensor:
        loss: torch.Tensor = job.loss(model, batch)
        return loss

    return dataclasses.replace(
        fresh, model=model, optimizer=rig.optimizer, forward=forward, update=rig.optimizer.step, feed=rig.feed,
        schedule=rig.schedule, outside=rig.outside,
    )  # fmt: skip
