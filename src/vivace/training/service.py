"""A worker's services for training: compare a plan's steps with the original's, learn for a while, be timed."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from vivace.core.errors import NotApplicable
from vivace.core.plan import Plan
from vivace.core.technique import Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.parity import Agreement
from vivace.core.training.rig import Ranks, Rig
from vivace.training.examine import STILLED, Examined, examine
from vivace.training.feed import feed_of
from vivace.training.keeping.model_file import write_model
from vivace.training.keeping.own_state import OwnState
from vivace.training.loop import Loop, score_of
from vivace.training.proof.in_a_row import InARow
from vivace.training.proof.later import proved_again, steps_of_one
from vivace.training.proof.snapshot import Key, set_by
from vivace.training.proof.together import Unproved, copies
from vivace.training.rig import assemble, seeded, takes_step

Payload = tuple[Training, Plan]


def equip(rig: Rig, job: Training, plan: Plan, may_lack: tuple[Stage, ...] = ()) -> Rig:
    """A rig with every technique of a plan. Raises NotApplicable with the technique's name and reason; techniques of
    the stages `may_lack` are left out instead, and noted. Generators and counters of the job's own are left as they
    were, whatever of it techniques have looked at."""
    own = OwnState(job)
    for technique in plan:
        try:
            rig = technique.equip(rig, job)
        except NotApplicable as error:
            if technique.stage in may_lack:
                rig = rig.replace(notes=(*rig.notes, f"goes on without {technique}: {error.reason}"))
                continue
            raise NotApplicable(f"{technique.name()}: {error.reason}") from error
        rig = rig.replace(lineage=(*rig.lineage, str(technique)))
    own.restore()
    return rig


def open_examiner(arguments: Mapping[str, Any], payload: Payload) -> Examiner:
    """The entry of a worker that proves parity."""
    return Examiner(*payload)


class Examiner:
    """Compares a plan with its original, in a process of its own; in each of `ranks`, where several train together."""

    def __init__(self, job: Training, plan: Plan, ranks: Ranks | None = None) -> None:
        self._job = job
        self._plan = plan
        self._ranks = ranks
        self._followed: InARow | None = None

    def agreements(self, steps: int) -> dict[str, Any]:
        """What `examine` found, as JSON; infinite errors as null.

        Dropout is off meanwhile where one process computes. Several must draw its masks, so it is on; if techniques are
        in the plan that would draw others in one process too, it is on in a step without them.
        """
        together = self._ranks is not None and not torch.cuda.is_available()  # masks in float64 are others on a device
        drawing = Plan.of(technique for technique in self._plan if not _draws_anew(technique))
        rig, found = self._examined(self._plan, steps, still=not together or len(drawing) < len(self._plan))
        agreements, notes = list(found.agreements), list(found.notes)
        if together and STILLED in notes:
            agreements += self._examined(drawing, 1, still=False)[1].agreements
            notes.append(f"with dropout on, one more step compares the masks of {drawing} with those of one process")
        told = dataclasses.replace(found, agreements=tuple(agreements), notes=tuple(notes))
        self._followed = InARow(self._job, rig, steps)
        return {**as_json(told), "whole_step": takes_step(rig)}

    def in_a_row(self, steps: int) -> dict[str, Any]:
        """So many steps, one after the other, of the rig that `agreements` has compared (a fresh one where that was
        not asked for before, or processes have started again since): what `InARow` found, as JSON,
        with a note where nothing can be compared."""
        if self._followed is None:
            rig = equip(assemble(self._job).replace(ranks=self._ranks), self._job, self._plan)
            self._followed = InARow(self._job, rig, 0)
        try:
            return {"agreements": agreements_as_json(self._followed.fed(steps)), "notes": []}
        except Unproved as why:
            return {"agreements": [], "notes": [str(why)]}

    def _examined(self, plan: Plan, steps: int, still: bool) -> tuple[Rig, Examined]:
        roundoff = max((technique.unit_roundoff for technique in plan), default=2.0**-24)
        equipped: list[Rig] = []

        def with_plan(rig: Rig) -> Rig:
            equipped.append(equip(rig.replace(ranks=self._ranks), self._job, plan))
            return equipped[-1]

        found = examine(self._job, with_plan, roundoff, steps, still)
        return equipped[0], found

    def curve(self, seed: int, steps: int, with_plan: bool) -> dict[str, Any]:
        """The losses of so many steps from a seed, and the score after them."""
        job = dataclasses.replace(self._job, seed=seed, epochs=10**9)
        rig = circling(assemble(job))
        loop = Loop(job, equip(rig.replace(ranks=self._ranks), job, self._plan) if with_plan else rig, None, "")
        losses: list[float] = []
        while len(losses) < steps:
            losses += loop.advance(steps - len(losses)).losses
        if with_plan and self._ranks is not None:
            self._ranks.refresh(loop.rig.model)
        return {"losses": losses, "score": loop.score()}


def as_json(found: Examined) -> dict[str, Any]:
    """What was found, with infinite errors as null."""
    agreements = agreements_as_json(found.agreements)
    return {"reference": found.reference, "notes": list(found.notes), "agreements": agreements}


def agreements_as_json(found: Iterable[Agreement]) -> list[dict[str, Any]]:
    """Agreements with infinite errors as null."""
    return [
        {**dataclasses.asdict(one), "kind": one.kind.value, "error": None if one.reason else one.error} for one in found
    ]


def _draws_anew(technique: Technique) -> bool:
    """Whether a technique draws other random numbers from the same seed: compilers do, and coarser numbers."""
    return technique.stage is Stage.COMPILE or technique.unit_roundoff > Technique.unit_roundoff


def open_fitting(arguments: Mapping[str, Any], payload: Payload) -> list[int]:
    """The numbers of the techniques of a plan that a hand-written loop can hold, in a rig without the others."""
    job, plan = payload
    kept: list[int] = []
    for number, technique in enumerate(plan):
        alone = Plan.of([*(plan.techniques[other] for other in kept), technique])
        if not takes_step(equip(assemble(job), job, alone)):
            kept.append(number)
    return kept


def open_step(arguments: Mapping[str, Any], payload: Payload) -> Stepper:
    """A program for an arm: each call takes one training step on the next batch, with whatever feeding it costs."""
    return stepping(*payload)


def stepping(job: Training, plan: Plan, ranks: Ranks | None = None) -> Stepper:
    """Takes steps of a job with a plan for as long as it is asked to; together with other `ranks`, where there are."""
    job = dataclasses.replace(job, epochs=10**9, evaluate=None)
    return Stepper(Loop(job, circling(equip(assemble(job).replace(ranks=ranks), job, plan)), None, ""))


def circling(rig: Rig) -> Rig:
    """The rig with its schedule, if there is one, begun again whenever it ends."""
    return rig if rig.schedule is None else rig.replace(schedule=Circling(rig.schedule))


class Circling:
    """A schedule that begins again where it has no further value, as those that know their number of steps do: a
    step may be timed more often than the training takes it."""

    def __init__(self, schedule: LRScheduler) -> None:
        self._schedule = schedule
        self._first = copy.copy(schedule.state_dict())

    def step(self) -> None:
        """The next value."""
        try:
            self._schedule.step()
        except ValueError:
            self._schedule.load_state_dict(copy.copy(self._first))


class Stepper:
    """Takes a step whenever it is called. What holds for a whole run, such as the number of threads, holds from when it
    is made: the process is its own."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._held = contextlib.ExitStack()
        for context in loop.rig.outside:
            self._held.enter_context(context())

    @property
    def many(self) -> Callable[[int], None] | None:
        """Takes so many steps as a training does; None where that takes them one by one."""
        return None if self._loop.rig.several is None else self._many

    def _many(self, steps: int) -> None:
        while steps > 0:
            found = self._loop.some(steps)
            if found is None:
                self._loop.advance(1)  # which ends the epoch, and takes no step
            steps -= 0 if found is None else len(found)

    @property
    def runs_ahead(self) -> bool:
        """Whether steps are launched on a CUDA device, so that a training need not wait for one before the next."""
        return any(parameter.is_cuda for parameter in self._loop.rig.model.parameters())

    @property
    def steps(self) -> int:
        """Steps so far."""
        return self._loop.position.steps

    def __call__(self, *_: Any) -> None:
        """One step, of the next epoch where one has ended."""
        if self._loop.some(1) is None:
            self._loop.advance(1)  # which ends the epoch, and takes no step
            self._loop.some(1)


def open_loop(arguments: Mapping[str, Any], payload: Payload) -> Trainer:
    """The entry of the worker that trains: {"keep": folder of checkpoints, "identity"}."""
    return Trainer(*payload, Path(arguments["keep"]), arguments["identity"])


class Trainer:
    """Trains a little whenever it is asked, and keeps what it has."""

    def __init__(self, job: Training, plan: Plan, keep: Path, identity: str, ranks: Ranks | None = None) -> None:
        self._job = job
        self._plan = plan
        self._keep = keep
        self._identity = identity
        self._ranks = ranks
        self._changed: dict[Key, Any] = {}

    def prepare(self) -> dict[str, Any]:
        """Make the parts and go to the newest checkpoint; where that is. What makes the same batches faster may fail by
        now (a full disk), and is then left out."""
        untold = dataclasses.replace(self._job, evaluate=None)  # whoever asks for steps asks for scores too
        rig = self._rig()
        self._loop = loop = Loop(untold, rig, self._keep, self._identity)
        return {
            **dataclasses.asdict(loop.resume()), "steps_an_epoch": rig.feed.steps(),
            "batches_of_samples": feed_of(self._job).steps() if self._job.has_samples else None,
            "lineage": list(rig.lineage),
            "notes": [*rig.notes, *loop.notes], "steps_of_a_proof": steps_of_one(self._plan, rig),
        }  # fmt: skip

    def _rig(self) -> Rig:
        """A fresh one of the plan."""
        return equip(assemble(self._job).replace(ranks=self._ranks), self._job, self._plan, may_lack=(Stage.FEED,))

    def advance(self, steps: int) -> dict[str, Any]:
        """Some steps; `Progress` as JSON. Raises StepChanged."""
        told = self._loop.advance(steps)
        return {**vars(told), "position": dataclasses.asdict(told.position)}

    def score(self) -> float | None:
        """The score of the model as it is; None without one. Raises UsageError with a checkpoint kept, and, after the
        last epoch, StepChanged: what an evaluation sets is for steps that come after it."""
        if self._loop.position.epoch >= self._job.epochs:
            self._loop.look()
        if self._job.evaluate is None:
            return None
        if self._ranks is not None:
            self._ranks.refresh(self._loop.rig.model)
        model = self._loop.rig.model
        with self._loop.kept_if_it_fails():
            found: float = set_by(lambda: score_of(self._job, model), model, self._changed)
        return found

    def prove(
        self, copies_alone: bool = False, first: Mapping[str, float] | None = None, further: int = 0
    ) -> dict[str, Any]:
        """What `proved_again` found of the training's own step, as JSON, or {"unproved": why there is nothing}. Where
        several processes hold the same tensors, these are compared first, or alone. `first` is how far off the plan's
        first steps were, `further` how many steps are looked at after the one. Raises StepChanged."""
        self._loop.look()
        ranks, model, steps = self._ranks, self._loop.rig.model, self._loop.position.steps
        found = () if ranks is None else tuple(copies(ranks, model, steps))
        if found or copies_alone:
            return as_json(Examined(found, "the first process's", ()))
        try:
            return as_json(proved_again(self._job, self._plan, self._loop, self._changed, first, self._rig, further))
        except Unproved as why:
            return {"unproved": str(why)}

    def hold(self) -> bool:
        """Keep a checkpoint in memory, written where a loss is not finite later; whether it is small enough."""
        return self._loop.hold()

    def save(self, is_proved: bool = False) -> None:
        """A checkpoint, whose last step was proved where that is said."""
        self._loop.save(is_proved)

    def held(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """The parameters, and the tensors of the optimizer's state."""
        rig = self._loop.rig
        states = [value for state in rig.optimizer.state.values() for value in state.values()]
        return list(rig.model.parameters()), [value for value in states if torch.is_tensor(value)]

    def write_model(self, to: str) -> None:
        """The model's state as safetensors, whole."""
        model = self._loop.rig.model
        if self._ranks is not None:
            state = model.state_dict()
            whole = self._ranks.whole({name: value for name, value in state.items() if torch.is_tensor(value)})
            others = {name: value for name, value in state.items() if not torch.is_tensor(value)}
            with seeded(self._job.seed):
                model = self._job.model()
            model.load_state_dict(others | {name: value for name, value in whole.items() if value is not None})
        if self._ranks is None or self._ranks.is_first:
            write_model(model, Path(to))
        if self._ranks is not None:
            self._ranks.meet("writing the model")
