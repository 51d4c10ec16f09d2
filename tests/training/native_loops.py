"""Loops that take steps of a job with a plan, for the tests of compiled steps."""

from __future__ import annotations

from pathlib import Path

import torch

from vivace.core.plan import Plan
from vivace.core.training.job import Training
from vivace.techniques.compile.native_step import NativeStep
from vivace.techniques.feed.sample_cache import SampleCache
from vivace.training.loop import Loop
from vivace.training.rig import assemble
from vivace.training.service import equip

CACHED, ALONE = Plan((SampleCache(), NativeStep())), Plan((NativeStep(),))
"""With batches that the program cuts itself, many steps in a call, and with batches that it is given."""


def loop_of(given: Training, plan: Plan, keep: Path | None = None) -> Loop:
    """A loop at its beginning."""
    return Loop(given, equip(assemble(given), given, plan), keep, "")


def finish(loop: Loop) -> list[float]:
    """Train to the end; the losses."""
    losses: list[float] = []
    while found := loop.advance(100).losses:
        losses += found
    return losses


def weights(loop: Loop) -> dict[str, torch.Tensor]:
    """Copies of the model's tensors."""
    return {name: value.clone() for name, value in loop.rig.model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether all are, to the bit."""
    return all(torch.equal(value, other[name]) for name, value in one.items())
