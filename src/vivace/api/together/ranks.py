"""What a rank of a training does when it is told to: prove its steps against one process, train, keep, score."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vivace.core.errors import NotApplicable
from vivace.core.plan import Plan
from vivace.core.training.job import Training
from vivace.core.training.rig import Ranks
from vivace.distributed.layout import Layout
from vivace.distributed.world import World
from vivace.measure import parcel
from vivace.measure.worker import describe
from vivace.techniques.parallel.layouts import techniques_of
from vivace.training.service import Examiner, Trainer


def open_member(arguments: Mapping[str, Any], payload: bytes, world: World) -> Member:
    """The entry of a rank: {"keep": folder of checkpoints, "identity"}, and the job with its plan as `parcel` packs
    them. What the layout asks for is added to the plan."""
    return Member(payload, world.layout, world, Path(arguments["keep"]), arguments["identity"])


class Member:
    """One of the processes that train together. All of them are told the same; the first one's answers count."""

    def __init__(self, payload: bytes, layout: Layout, ranks: Ranks, keep: Path, identity: str) -> None:
        self._payload = payload
        self._layout = layout
        self._ranks = ranks
        self._keep = keep
        self._identity = identity

    def agreements(self, steps: int) -> dict[str, Any]:
        """What `Examiner.agreements` says: this layout's steps against those of one process."""
        return Examiner(*self._fresh(), self._ranks).agreements(steps)

    def curve(self, seed: int, steps: int, with_plan: bool) -> dict[str, Any]:
        """What `Examiner.curve` says: the losses of so many steps, of one process without the plan."""
        return Examiner(*self._fresh(), self._ranks).curve(seed, steps, with_plan)

    def prepare(self) -> dict[str, Any]:
        """What `Trainer.prepare` says, with how many processes there are."""
        self._trainer = Trainer(*self._fresh(), self._keep, self._identity, self._ranks)
        return self._trainer.prepare()

    def advance(self, steps: int) -> dict[str, Any]:
        """Some steps."""
        return self._trainer.advance(steps)

    def score(self) -> float | None:
        """The score of the model as it is, which every process computes."""
        return self._trainer.score()

    def save(self) -> None:
        """A checkpoint, written by the first process."""
        self._trainer.save()

    def write_model(self, to: str) -> None:
        """The whole model's state as safetensors."""
        self._trainer.write_model(to)

    def describe(self, error: BaseException) -> dict[str, str]:
        """An error as the launcher is told it."""
        if isinstance(error, NotApplicable):
            return {"raise": "UsageError", "reason": f"the layout {self._layout} is not possible: {error.reason}"}
        return describe(error)

    def _fresh(self) -> tuple[Training, Plan]:
        """The job, as if nothing had been done with it, and the plan with its layout."""
        found: Any = parcel.unpacked(self._payload)
        job, plan = found
        return job, with_layout(plan, self._layout)


def with_layout(plan: Plan, layout: Layout) -> Plan:
    """A plan with the techniques of a layout in place of those that it has of another one."""
    kinds = {type(one) for one in techniques_of(Layout(2, 1, 2, 2))} | {type(techniques_of(Layout(shard=2))[0])}
    return Plan.of([*(one for one in plan if type(one) not in kinds), *techniques_of(layout)])
