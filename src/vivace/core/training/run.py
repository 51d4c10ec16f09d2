"""What a training gives back: where a step's time went, what was tried, the proof, and how the run itself went."""

from __future__ import annotations

import dataclasses
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vivace.core.measurement import Comparison, Interval, Outcome
from vivace.core.plan import Plan
from vivace.core.training.bound import StepBound, StepRoofline
from vivace.core.training.course import Course
from vivace.core.training.parity import Parity
from vivace.core.training.proofs import LaterProof

if TYPE_CHECKING:
    import torch


class Basis(Enum):
    """Where a number comes from."""

    MEASURED = "MEASURED"
    PREDICTED = "PREDICTED"


@dataclasses.dataclass(frozen=True)
class Advice:
    """One change to a step, and what it brings alone: `gain` is the original's seconds over those with it.

    `technique` is what makes the change, as `only` names it. MEASURED: some steps were taken so and as given, in turns,
    with the 95% `interval` that the turns give; `train` measures in fresh pairs of processes. PREDICTED: a bound, what
    would be left of the step at best, so that it has no interval.
    """

    change: str
    technique: str
    gain: float
    basis: Basis
    interval: Interval | None = None


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """Where the time and the memory of a step go, the original's or a plan's, MEASURED over `steps` steps.

    Seconds are medians: waiting for a batch (`input_seconds`), the forward pass with the loss, the backward pass with
    the clearing of gradients before it, the optimizer's update. Where a compiler made one piece of the last three, they
    are 0, and `whole_seconds` is what it takes. `overhead_seconds` is the part of all but waiting in which no operator
    of PyTorch ran: Python, and launching; what a compiler made of operators counts as one, with the Python in it.
    `evaluate_seconds` is one evaluation, None without one and of a plan. `flops` are the counted operations of a step
    of the original; what a plan repeats or saves of them is not counted. `ceiling_gflops` is the machine's measured
    rate in float32 with this many `threads`, None where it was not measured. Bytes are of parameters, their gradients,
    the optimizer's state and what the forward pass keeps for the backward pass. `communication_seconds` is the time
    in which anything is exchanged between processes that train together, also beside computing; 0 where one trains. Of
    several, all is what the first one sees, and what it holds of the model; activations are not weighed. `advice`
    begins with what was measured, by the low ends of the intervals, and goes on with bounds, by size; there is none for
    a plan. `device` is where the model lies, cpu or cuda: there each phase is timed
    until the device has finished, and time in which no kernel runs on it is overhead. `bound` is what explains the most
    of a step, `evidence` how that shows; `rival` is what may explain as
    much, where their 95% intervals overlap. `roofline` has the step's operators with what each moves and computes; None
    where they were not watched: of several processes, of what was compiled, or without a measured ceiling.
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
    whole_seconds: float = 0.0
    communication_seconds: float = 0.0
    advice: tuple[Advice, ...] = ()
    device: str = "cpu"
    roofline: StepRoofline | None = None
    rival: StepBound | None = None

    @property
    def bound_words(self) -> str:
        """What bounds it, in words: one thing, or the two between which its steps cannot tell."""
        if self.rival is None:
            return self.bound.value
        return f"{self.bound.value} or {self.rival.value} (its steps cannot tell which)"

    @property
    def floor_seconds(self) -> float | None:
        """The least time that the counted operations take at the ceiling; None where that was not measured."""
        return self.flops / (self.ceiling_gflops * 1e9) if self.ceiling_gflops else None

    @property
    def share_of_ceiling(self) -> float | None:
        """The least time that the counted operations take at the ceiling, over the step's."""
        floor = self.floor_seconds
        return None if floor is None or not self.step_seconds else floor / self.step_seconds


@dataclasses.dataclass(frozen=True)
class Count:
    """The original's step on so many processes, arranged by `layout`, beside that of one: medians in seconds, and the
    speed-up with its 95% interval."""

    processes: int
    layout: str
    one_seconds: float
    step_seconds: float
    speedup: Interval


@dataclasses.dataclass(frozen=True)
class Rank:
    """One of the processes that trained together: its place on the mesh by axis, and what it held at the end, in bytes.

    Parameters and optimizer state are its own parts; `peak_bytes` is the most memory that its process was seen to hold.
    """

    rank: int
    place: dict[str, int]
    threads: int
    parameter_bytes: int
    optimizer_bytes: int
    peak_bytes: int


@dataclasses.dataclass(frozen=True)
class Scaling:
    """A step of several processes beside the same step in one, MEASURED on this machine: in blocks that alternate where
    the plan was searched for (`counts`), else one after the other.

    `counts` has every layout that was timed so, also with fewer processes. What the laws of Amdahl and Gustafson make
    of it: `devices.scaling`.
    """

    processes: int
    one_seconds: float
    step_seconds: float
    counts: tuple[Count, ...] = ()

    @property
    def speedup(self) -> float:
        """The seconds of one process over those of all; 0 where these took none."""
        return self.one_seconds / self.step_seconds if self.step_seconds else 0.0


@dataclasses.dataclass(frozen=True)
class StepTrial:
    """A plan whose steps were tried: its speed-up over the best one before it (`over`), what its parity said and noted.

    `pays_after` is after how many steps a first step that takes longer, for compiling, has paid for itself; None where
    no time is saved or none was measured. `seconds` is the plan's median step, `over_seconds` that of the one before it
    in the same pair of processes; None where none was timed.
    """

    plan: Plan
    outcome: Outcome
    speedup: Interval | None
    prepare_seconds: float
    accepted: bool
    reason: str = ""
    notes: tuple[str, ...] = ()
    over: Plan = dataclasses.field(default_factory=Plan)
    pays_after: int | None = None
    seconds: float | None = None
    over_seconds: float | None = None

    @property
    def brought(self) -> str:
        """The techniques that the plan has and the one before it has not."""
        return " + ".join(str(technique) for technique in self.plan if technique not in self.over.techniques)


@dataclasses.dataclass(frozen=True)
class TrainingRun:
    """A finished training.

    `speedup` compares steps of the plan with the original's, in fresh pairs of processes; None where the original was
    kept or nothing could be confirmed. `noise_ratios` are those of the original against itself, block by block.
    `diagnosis_after` is of the plan's step, None where the original was kept. `break_even_steps` is from how many steps
    on the time saved has paid for `search_seconds`; None where the plan was not shown to be faster.
    `losses` has the mean loss of every epoch, `scores` the score after each, `course` the steps one by one, thinned.
    `reached` says whether `until` was. `seconds` are of the training itself, without choosing the plan: first
    `prepare_seconds`, in which the plan's parts are made and its caches filled, then `epoch_seconds`, the steps of each
    epoch without its evaluation; what a compiler takes is in the first of them. `peak_bytes` is the most memory that
    the process that trained was seen to hold. `skipped_steps`
    were left out because scaled gradients were not finite. `restarts` says why processes that train together have had
    to start again from a checkpoint, one sentence each time; `scaling` is their step beside that of one process, also
    where one process was faster and trained; `dropped` says which techniques were taken out while it trained, because
    a step that they had recorded had become another one, or a step of the run's own was not the original's, one
    sentence each time, and nothing was timed of the plan that is left; `ranks` are those that trained, none where it
    was one. `proofs` are of steps in the midst of the run, those that did not hold included; `unproved` says which
    steps after the last of them none speaks for, and why, nothing where all are spoken for.
    `earlier` says of which session the trials, the proof and the comparison of a resumed run are.
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
    prepare_seconds: float = 0.0
    epoch_seconds: tuple[float, ...] = ()
    peak_bytes: int = 0
    resumed_steps: int = 0
    skipped_steps: int = 0
    restarts: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    proofs: tuple[LaterProof, ...] = ()
    unproved: str = ""
    earlier: str = ""
    scaling: Scaling | None = None
    ranks: tuple[Rank, ...] = ()
    reached: bool | None = None
    out: Path | None = None
    conditions: dict[str, Any] = dataclasses.field(default_factory=dict)
    diagnosis_after: Diagnosis | None = None
    noise_ratios: tuple[float, ...] = ()
    break_even_steps: int | None = None
    course: Course = dataclasses.field(default_factory=Course)
    model: torch.nn.Module | None = dataclasses.field(default=None, compare=False)

    @property
    def ledger(self) -> tuple[StepTrial, ...]:
        """What each technique of the plan brought when it was added, in that order."""
        return tuple(trial for trial in self.trials if trial.accepted)

    @property
    def speedup(self) -> Interval | None:
        """Of a step, from the confirmation."""
        return self.comparison.speedup if self.comparison else None
