"""Lets TorchInductor compile the forward pass with the loss, and with them the backward pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch

from vivace.core.errors import UsageError
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.core.work import Work

SCOPES = ("loss", "step")


@dataclasses.dataclass(frozen=True)
class CompiledTraining(Technique):
    """torch.compile over forward and loss; its ahead-of-time autograd compiles the backward pass too.

    `scope` "step" compiles the optimizer's update as well. Every shape of batch is compiled for itself, so the last and
    smaller batch of an epoch costs a second compilation. Wrong gradients by compilers have been shipped
    (pytorch issue 193061), which is what parity is for.

    Source: Ansel et al., PyTorch 2, ASPLOS 2024, https://docs.pytorch.org/assets/pytorch2-2.pdf.

    >>> str(CompiledTraining("step"))
    'compiled-training(scope=step)'
    """

    scope: str = "loss"

    stage = Stage.COMPILE
    family = Family.ALGORITHM
    effect = Effect.ROUNDED
    needs = frozenset({Fact.TRAINING, Fact.UNCOMPILED, Fact.CXX_COMPILER})
    breaks = frozenset({Fact.UNCOMPILED})
    source = "Ansel et al., PyTorch 2, ASPLOS 2024, https://docs.pytorch.org/assets/pytorch2-2.pdf"
    build_seconds = 30.0

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise UsageError(f"compiled-training received scope={self.scope!r}; allowed are {', '.join(SCOPES)}")

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """The whole step, and without the optimizer."""
        yield cls("step")
        yield cls("loss")

    def equip(self, rig: Rig, job: Training) -> Rig:
        """The rig with compiled parts; they are compiled when a batch of a new shape first comes."""
        forward = torch.compile(rig.forward, dynamic=False)
        if self.scope == "loss":
            return rig.replace(forward=forward)
        return rig.replace(forward=forward, update=torch.compile(rig.update, dynamic=False))
