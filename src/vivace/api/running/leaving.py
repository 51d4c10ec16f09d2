"""Takes out of a plan what makes steps that are not the original's, alone where that can be found out."""

from __future__ import annotations

import dataclasses

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
    was that one. Where it was none of them alone, the original trains."""

    def __init__(self) -> None:
        self._failed: LaterProof | None = None
        self._whole = Plan()
        self._left: list[Technique] = []
        self._sentences: tuple[str, ...] = ()

    def after(self, run: TrainingRun, found: StepDiffers, kept: int) -> TrainingRun:
        """The run with the next plan to go on with from step `kept`, and what its reader must know."""
        failed = found.proofs[-1]
        if self._failed is None or failed.since > self._failed.since:
            worst = found.parity.culprits[0]
            self._failed, self._whole, self._sentences = failed, run.plan, run.dropped
            self._left = _suspects(run.plan, worst)
        plan, out = Plan(), str(self._whole)
        if self._left:
            technique = self._left.pop(0)
            plan, out = without(self._whole, technique), str(technique)
        told = (
            f"steps {self._failed.since + 1} to {self._failed.step} were taken with a step that was not the "
            f"original's ({self._failed.reason}) and are not in this model: {out} was taken out, and it was trained "
            f"{_with(plan)} {f'from step {kept} on' if kept else 'from the beginning'}"
        )
        resumed = run.resumed_steps if run.dropped else found.resumed
        changed = _changed(run, plan, (*self._sentences, told))
        return dataclasses.replace(changed, proofs=found.proofs, resumed_steps=resumed)


def _suspects(plan: Plan, worst: Agreement) -> list[Technique]:
    """What may be left out alone, the last one first, as a plan is built up; of feeds only where batches differ."""
    return [
        one
        for one in reversed(plan.techniques)
        if (one.stage is Stage.FEED) == (worst.kind is Kind.BATCH)
        and len(plan) > 1
        and without(plan, one).illegal(START | OF_THE_MACHINE) is None
    ]


def _changed(run: TrainingRun, plan: Plan, dropped: tuple[str, ...]) -> TrainingRun:
    """With a plan that nothing was measured of."""
    return dataclasses.replace(
        run, plan=plan, dropped=dropped, comparison=None, parity=None, diagnosis_after=None, break_even_steps=None
    )


def _with(plan: Plan) -> str:
    return f"with {plan}" if len(plan) else "as given"
