"""What a rank of a training does when it is told to: prove its steps against one process, train, keep, score."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vivace.core.errors import NotApplicable
from vivace.core.measurement import Outcome
from vivace.core.plan import Plan
from vivace.core.training.job import Training
from vivace.distributed.layout import Layout
from vivace.distributed.world import World, bytes_here
from vivace.measure import clock, memory, parcel
from vivace.measure.worker import describe
from vivace.search.training.diagnosis import Diagnoser
from vivace.techniques.parallel.layouts import techniques_of, why_not, with_layout
from vivace.training.service import Examiner, Trainer, stepping


def open_member(arguments: Mapping[str, Any], payload: bytes, world: World) -> Member:
    """The entry of a rank: {"keep": folder of checkpoints, "identity"}, and the job with its plan as `parcel` packs
    them. What the layout asks for is added to the plan."""
    return Member(payload, world, Path(arguments.get("keep", "")), arguments.get("identity", ""))


def open_possible(arguments: Mapping[str, Any], job: Training) -> list[str]:
    """The entry of a worker that looks at a job's model alone: {"layouts"}; why each is not possible, or nothing."""
    return [why_not(Layout.read(text), job) for text in arguments["layouts"]]


class Member:
    """One of the processes that train together. All of them are told the same; the first one's answers count."""

    def __init__(self, payload: bytes, ranks: World, keep: Path, identity: str) -> None:
        self._payload = payload
        self._layout = ranks.layout
        self._ranks = ranks
        self._others = ranks if ranks.layout.processes > 1 else None  # one that is left trains as one process does
        self._keep = keep
        self._identity = identity
        self._examiner: Examiner | None = None

    def agreements(self, steps: int) -> dict[str, Any]:
        """What `Examiner.agreements` says: this layout's steps against those of one process."""
        self._examiner = Examiner(*self._fresh(), self._others)
        return self._examiner.agreements(steps)

    def in_a_row(self, steps: int) -> dict[str, Any]:
        """What `Examiner.in_a_row` says."""
        self._examiner = self._examiner or Examiner(*self._fresh(), self._others)
        return self._examiner.in_a_row(steps)

    def curve(self, seed: int, steps: int, with_plan: bool) -> dict[str, Any]:
        """What `Examiner.curve` says: the losses of so many steps, of one process without the plan."""
        return Examiner(*self._fresh(), self._others).curve(seed, steps, with_plan)

    def diagnosis(self, steps: int, flops: float) -> dict[str, Any]:
        """What `Diagnoser.read` says of a step that all take together, as this rank sees it."""
        return Diagnoser(*self._fresh(), self._others).read(steps, flops)

    def begin(self) -> None:
        """Make what `take` takes steps with."""
        self._stepper = stepping(*self._fresh(), self._others)

    def take(self, steps: int) -> list[float]:
        """Take so many steps, as `measure.arm` does with those of one process; the seconds of each on this rank."""
        stepper = self._stepper
        timer = clock.time_device_block if stepper.runs_ahead else clock.time_calls
        with clock.quiet_collector():
            return timer(stepper, range(steps))

    def prepare(self) -> dict[str, Any]:
        """What `Trainer.prepare` says, with how many processes there are."""
        self._trainer = Trainer(*self._fresh(), self._keep, self._identity, self._others)
        return self._trainer.prepare()

    def advance(self, steps: int) -> dict[str, Any]:
        """Some steps."""
        return self._trainer.advance(steps)

    def score(self) -> float | None:
        """The score of the model as it is, which every process computes."""
        return self._trainer.score()

    def prove(
        self, copies_alone: bool = False, first: dict[str, float] | None = None, further: int = 0
    ) -> dict[str, Any]:
        """What `Trainer.prove` says."""
        return self._trainer.prove(copies_alone, first, further)

    def hold(self) -> bool:
        """What `Trainer.hold` says."""
        return self._trainer.hold()

    def save(self, is_proved: bool = False) -> None:
        """A checkpoint, written by the first process."""
        self._trainer.save(is_proved)

    def readings(self) -> list[dict[str, Any]]:
        """What `Rank` says, of every process."""
        parameters, states = self._trainer.held()
        mine = {
            "rank": self._ranks.rank, "place": self._ranks.where(), "threads": torch.get_num_threads(),
            "parameter_bytes": bytes_here(parameters), "optimizer_bytes": bytes_here(states),
            "peak_bytes": memory.peak_bytes(),
        }  # fmt: skip
        return self._ranks.told_by_all(mine)

    def write_model(self, to: str) -> None:
        """The whole model's state as safetensors."""
        self._trainer.write_model(to)

    def describe(self, error: BaseException) -> dict[str, str]:
        """An error as the launcher is told it."""
        if isinstance(error, NotApplicable):
            who = error.reason.partition(":")[0]
            is_of_layout = who in {technique.name() for technique in techniques_of(self._layout)}
            told = f"the layout {self._layout} is not possible: " if is_of_layout else ""
            return {"outcome": Outcome.UNSUPPORTED.value, "reason": f"{told}{error.reason}"}
        return describe(error)

    def _fresh(self) -> tuple[Training, Plan]:
        """The job, as if nothing had been done with it, and the plan with its layout."""
        found: Any = parcel.unpacked(self._payload)
        job, plan = found
        return job, with_layout(plan, self._layout)
