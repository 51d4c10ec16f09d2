"""Takes out of a plan what makes steps that are not the original's, alone where that can be found out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from vivace.api.parity import TrainsOtherwise
from vivace.api.running.proofs import StepDiffers
from vivace.core.errors import StepChanged
from vivace.core.facts import OF_THE_MACHINE
from vivace.core.plan import Plan
from vivace.core.technique import Stage, Technique
from vivace.core.training.parity import Agreement, Kind
from vivace.core.training.proofs import LaterProof
from vivace.core.training.run import TrainingRun
from vivace.search.rank import without
from vivace.search.training.choose import START
from vivace.techniques.parallel.layouts import KINDS


def without_recording(run: TrainingRun, change: StepChanged) -> TrainingRun:
    """The run without what had recorded its step, in a plan that was compared with nothing. Raises the error again
    where it is not known what that is."""
    recording = [one for one in run.plan if one.stage in (Stage.COMPILE, Stage.TARGET)]
    if not recording:
        raise change
    plan = Plan(tuple(one for one in run.plan if one not in recording))
    told = f"{' and '.join(map(str, recording))} was taken out, since {str(change).partition(':')[0]}"
    dropped = (*run.dropped, f"{told}; it was trained {_with(plan)} from the beginning")
    return _changed(run, plan, dropped)


class Leaving:
    """Finds the technique that makes steps another, by leaving out one after the other: each time the run goes on from
    the last checkpoint that was proved, and whether its steps are the original's where they were not shows whether it
    was that one. Where it was none of them alone, the original trains; where `processes` train together, who divide the
    work as they were asked to, nobody does (`is_stuck`).
    """

    def __init__(self, processes: int = 1) -> None:
        self.is_stuck = False
        self._processes = processes
        self._failed: LaterProof | None = None
        self._whole = Plan()
        self._left: list[Technique] = []
        self._sentences: tuple[str, ...] = ()

    def after(self, run: TrainingRun, found: StepDiffers, kept: int) -> TrainingRun:
        """The run with the next plan to go on with from step `kept`, and what its reader must know."""
        failed, is_later = found.proofs[-1], self._failed is not None
        if self._failed is None or failed.since > self._failed.since:
            worst = found.parity.culprits[0]
            self._failed, self._whole, self._sentences = failed, run.plan, run.dropped
            self._left = _suspects(run.plan, worst)
        told = f"{self._wrong()} and are not in this model"
        self.is_stuck = not self._left and self._processes > 1
        if self.is_stuck:
            told = f"{told}: {self._processes} processes with {self._whole} were stopped there, at step {kept} again"
            return dataclasses.replace(run, dropped=(*self._sentences, told), proofs=found.proofs)
        plan, out = Plan(), str(self._whole)
        if self._left:
            technique = self._left.pop(0)
            plan, out = without(self._whole, technique), str(technique)
        told = f"{told}: {out} was taken out, and it was trained {_with(plan)} {_from(kept)}"
        resumed = run.resumed_steps if is_later else found.resumed
        changed = _changed(run, plan, (*self._sentences, told))
        return dataclasses.replace(changed, proofs=found.proofs, resumed_steps=resumed)

    def how_to_go_on(self, home: Path, kept: int) -> str:
        """What to tell who trains on several processes that cannot go on."""
        alone = "in one process, whose steps are the original's: processes=1, resume=True (--processes 1 --resume)"
        if kept:
            return (
                f"{self._wrong()}; what was trained in {kept} steps, which are proved, is kept in {home}: go on {alone}"
            )
        again = "processes=1 (--processes 1) and another out (--out)"
        return (
            f"{self._wrong()}; no step of it was proved, so no checkpoint is kept: train in one process, with {again}"
        )

    def _wrong(self) -> str:
        assert self._failed is not None
        since, until, reason = self._failed.since + 1, self._failed.step, self._failed.reason
        return f"steps {since} to {until} were taken with a step that was not the original's ({reason})"


class LeavingAtFirst:
    """Finds the technique that makes the first steps of several processes another, by leaving out one after the other,
    and then all of them: the layout alone trains as it was asked for, or it is the job that no processes can share.
    """

    def __init__(self) -> None:
        self._first: TrainsOtherwise | None = None
        self._whole = Plan()
        self._left: list[Plan] = []
        self._sentences: tuple[str, ...] = ()

    def after(self, run: TrainingRun, found: TrainsOtherwise) -> TrainingRun:
        """The run with the next plan to begin with, and what its reader must know. Raises TrainsOtherwise where none is
        left."""
        if self._first is None:
            self._first, self._whole, self._sentences = found, run.plan, run.dropped
            layout = Plan(tuple(one for one in run.plan if isinstance(one, KINDS)))
            rest = [without(run.plan, one) for one in _suspects(run.plan, found.parity.culprits[0])]
            self._left = [*rest, layout] if len(layout) < len(run.plan) and layout not in rest else rest
        if not self._left:
            raise self._first
        plan = self._left.pop(0)
        out = " and ".join(str(one) for one in self._whole if one not in plan.techniques)
        told = f"{out} trains differently and was left out: {self._first.parity.reason}"
        return _changed(run, plan, (*self._sentences, told))


def _suspects(plan: Plan, worst: Agreement) -> list[Technique]:
    """What may be left out alone, the last one first, as a plan is built up; of feeds only where batches differ. How
    processes divide the work is none of it."""
    return [
        one
        for one in reversed(plan.techniques)
        if (one.stage is Stage.FEED) == (worst.kind is Kind.BATCH)
        and len(plan) > 1
        and not isinstance(one, KINDS)
        and without(plan, one).illegal(START | OF_THE_MACHINE) is None
    ]


def _changed(run: TrainingRun, plan: Plan, dropped: tuple[str, ...]) -> TrainingRun:
    """With a plan that nothing was measured of."""
    return dataclasses.replace(
        run, plan=plan, dropped=dropped, comparison=None, parity=None, diagnosis_after=None, break_even_steps=None
    )


def _from(step: int) -> str:
    return f"from step {step} on" if step else "from the beginning"


def _with(plan: Plan) -> str:
    return f"with {plan}" if len(plan) else "as given"
