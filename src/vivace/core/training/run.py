"""What a training gives back: where a step's time went, what was tried, the proof, and how the run itself went."""

from __future__ import annotations

import dataclasses
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vivace.core.measurement import Comparison, Interval, Outcome
from vivace.core.plan import Plan
from vivace.core.training.parity import Parity

if TYPE_CHECKING:
    import torch


class StepBound(Enum):
    """What most of a step's time goes to."""

    INPUT = "input"
    OVERHEAD = "overhead"
    MEMORY = "memory"
    COMPUTE = "compute"


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """Where the time and the memory of the original's step go, MEASURED over `steps` steps.

    Seconds are medians: waiting for a batch (`input_seconds`), the forward pass with the loss, the backward pass, the
    optimizer's update. `overhead_seconds` is the part of forward, backward and update in which no operator of PyTorch
    ran: Python, and launching. `evaluate_seconds` is one evaluation, None without one. `flops` are counted operations
    of one step; `ceiling_gflops` the machine's measured rate in float32 with this many `threads`, None where it was not
    measured. Bytes are of parameters, their gradients, the optimizer's state and what the forward pass keeps for the
    backward pass.
    """

    steps: int
    threads: int
    step_seconds: float
    input_seconds: float
    forward_seconds: float
    backward_seconds: float
    update_seconds: float
    overhead_seconds: float
    evaluate_seconds: float | None
    flops: float
    ceiling_gflops: float | None
    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    bound: StepBound
    evidence: str
    notes: tuple[str, ...] = ()

    @property
    def share_of_ceiling(self) -> float | None:
        """The least time that the counted operations take at the ceiling, over the step's."""
        return self.flops / (self.ceiling_gflops * 1e9) / self.step_seconds if self.ceiling_gflops else None


@dataclasses.dataclass(frozen=True)
class StepTrial:
    """A plan whose steps were tried: its speed-up over the best plan before it (`over`), and what its parity said.

    `pays_after` is after how many steps a first step that takes longer, for compiling, has paid for itself; None where
    no time is saved or none was measured.
    """

    plan: Plan
    outcome: Outcome
    speedup: Interval | None
    prepare_seconds: float
    accepted: bool
    reason: str = ""
    over: Plan = dataclasses.field(default_factory=Plan)
    pays_after: int | None = None

    @property
    def brought(self) -> str:
        """The techniques that the plan has and the one before it has not."""
        return " + ".join(str(technique) for technique in self.plan if technique not in self.over.techniques)


@dataclasses.dataclass(frozen=True)
class TrainingRun:
    """A finished training.

    `speedup` compares steps of the plan with the original's, in fresh pairs of processes; None where the original was
    kept or nothing could be confirmed. `losses` has the mean loss of every epoch, `scores` the score after each.
    `reached` says whether `until` was. `seconds` are of the training itself, without choosing the plan. `skipped_steps`
    were left out because scaled gradients were not finite.
    """

    name: str
    plan: Plan
    diagnosis: Diagnosis
    trials: tuple[StepTrial, ...]
    comparison: Comparison | None
    parity: Parity | None
    search_seconds: float
    losses: tuple[float, ...] = ()
    scores: tuple[float | None, ...] = ()
    steps: int = 0
    seconds: float = 0.0
    resumed_steps: int = 0
    skipped_steps: int = 0
    reached: bool | None = None
    out: Path | None = None
    conditions: dict[str, Any] = dataclasses.field(default_factory=dict)
    model: torch.nn.Module | None = dataclasses.field(default=None, compare=False)

    @property
    def ledger(self) -> tuple[StepTrial, ...]:
        """What each technique of the plan brought when it was added, in that order."""
        return tuple(trial for trial in self.trials if trial.accepted)

    @property
    def speedup(self) -> Interval | None:
        """Of a step, from the confirmation."""
        return self.comparison.speedup if self.comparison else None
