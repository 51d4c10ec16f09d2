"""The plan of a training that several processes may take: layouts race one process, then techniques race with all."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vivace.api.parity import MIXES
from vivace.api.step_plans import Choice, Chosen, stepping_calls, trained_with
from vivace.core.errors import UsageError, WorkerFailure
from vivace.core.measurement import Outcome
from vivace.core.plan import Plan
from vivace.core.training.run import Count, Scaling, StepTrial
from vivace.distributed.layout import Layout
from vivace.measure.clock import SystemClock
from vivace.measure.process import Phase, Worker
from vivace.techniques.parallel.layouts import layout_of, with_layout

POSSIBLE = "vivace.api.together.ranks:open_possible"
LAYOUTS_SHARE, TOGETHER_SHARE = 0.4, 0.5
"""Of the time for choosing, what layouts may take; of the rest, what techniques with several processes may."""


@dataclasses.dataclass(frozen=True)
class TogetherChoice:
    """What may be chosen for a job that several processes may train.

    `layouts` are tried in this order. One that was asked for (`is_given`) trains whatever is faster, and that is told;
    all time for choosing is its techniques' then. Else one process competes with them, bare and with techniques of its
    own, and what is fastest trains.
    """

    choice: Choice
    layouts: Sequence[Layout]
    is_given: bool

    def make(self) -> Chosen:
        """Search and confirm. Raises UsageError where the layout that was asked for cannot train the job as one process
        would."""
        clock = SystemClock()
        began = clock.now()
        with stepping_calls() as (calls, logs):
            trials = self._layouts(calls, logs / "layouts")
            found = self._as_given(trials) if self.is_given else trials
            timed = [trial for trial in found if trial.speedup is not None]
            if not timed:
                return self._alone(found, self._left(began), calls, logs)
            start = max(timed, key=lambda trial: 0.0 if trial.speedup is None else trial.speedup.value)
            found = [one if one is start else _unkept(one, f"{start.plan} is faster still") for one in found]
            share = self._left(began) * (1.0 if self.is_given else TOGETHER_SHARE)
            best, more = self.choice.search(start.plan, share, calls, logs / "together", self.is_given)
            scaling = scaling_of(start, timed)
            if self.is_given:
                chosen = self._kept(start.plan, best, [*found, *more], calls, logs)
            else:
                chosen = self._fastest(start, best, [*found, *more], self._left(began), calls, logs)
            return dataclasses.replace(chosen, scaling=scaling)

    def _left(self, began: float) -> float:
        return self.choice.seconds - (SystemClock().now() - began)

    def _layouts(self, calls: Path, logs: Path) -> list[StepTrial]:
        """Every layout against the original in one process; those that the model cannot have are not launched."""
        clock, began = SystemClock(), SystemClock().now()
        trials: list[StepTrial] = []
        for layout, reason in zip(self.layouts, self._impossible(), strict=True):
            plan = with_layout(Plan(), layout)
            if reason:
                trials.append(StepTrial(plan, Outcome.UNSUPPORTED, None, 0.0, False, reason))
                continue
            is_first = not any(trial.speedup is not None for trial in trials)
            if not is_first and clock.now() - began > LAYOUTS_SHARE * self.choice.seconds:
                told = "the time for layouts was over (--time); name it with --layout to have it tried"
                trials.append(StepTrial(plan, Outcome.CANCELLED, None, 0.0, False, told))
                continue
            self.choice.progress.stage("layout", f"{layout} against one process")
            trial = self.choice.tried(Plan(), plan, calls, logs / str(len(trials)))
            trials.append(trial)
            self.choice.progress.trial(plan, trial.outcome, trial.speedup, None, self._left(began))
        return trials

    def _impossible(self) -> list[str]:
        """Why each layout cannot be had of this model; empty texts where a launch must show it."""
        asked = {"layouts": [str(layout) for layout in self.layouts]}
        with tempfile.TemporaryDirectory(prefix="vivace-") as name, Worker(Path(name), self.choice.limits) as worker:
            found: list[str] = worker.open(POSSIBLE, asked, self.choice.job, Phase.LOAD)
        return found

    def _as_given(self, trials: Sequence[StepTrial]) -> list[StepTrial]:
        """The trial of the layout that was asked for, which is kept. Raises UsageError where it cannot be, and
        WorkerFailure where its processes fail."""
        (trial,) = trials
        if trial.outcome is Outcome.QUALITY_FAILED:
            raise UsageError(f"on several processes this job trains differently than on one: {trial.reason}; {MIXES}")
        if trial.speedup is None and trial.outcome is not Outcome.UNSUPPORTED:
            raise WorkerFailure(trial.outcome, trial.reason)
        if trial.speedup is None:
            told = trial.reason.partition("is not possible: ")[2] or trial.reason
            raise UsageError(f"the layout {layout_of(trial.plan)} is not possible: {told}")
        reason = f"it was asked for; over one process: {trial.speedup}"
        return [dataclasses.replace(trial, accepted=True, reason=reason)]

    def _alone(self, trials: Sequence[StepTrial], seconds: float, calls: Path, logs: Path) -> Chosen:
        """What one process is fastest with, where no layout was timed."""
        best, more = self.choice.search(Plan(), seconds, calls, logs / "alone")
        return dataclasses.replace(self.choice.confirmed(best, calls, logs), trials=(*trials, *more))

    def _kept(self, start: Plan, best: Plan, trials: list[StepTrial], calls: Path, logs: Path) -> Chosen:
        """The layout that was asked for, with techniques if these are confirmed to make its steps faster; timed against
        the original in one process."""
        if best != start:
            found = self.choice.against(start, best, calls, logs / "techniques")
            is_faster = trained_with(best, found.verdict) == best
            reason = f"all of them over the layout alone, in three fresh pairs: {found.verdict.value}"
            if not is_faster:
                trials = [one if one.plan == start else _unkept(one, "together they are not") for one in trials]
            trials.append(StepTrial(best, Outcome.OK if is_faster else Outcome.NOT_FASTER, found.speedup, 0.0,
                                    is_faster, reason, over=start))  # fmt: skip
            best = best if is_faster else start
        chosen = self.choice.confirmed(best, calls, logs, is_asked=True)
        return dataclasses.replace(chosen, trials=tuple(trials))

    def _fastest(
        self, start: StepTrial, best: Plan, trials: list[StepTrial], seconds: float, calls: Path, logs: Path
    ) -> Chosen:
        """The faster of several processes and one, each with its techniques."""
        alone, more = self.choice.search(Plan(), seconds, calls, logs / "alone")
        trials += more
        wins = start.accepted
        if len(alone) or best != start.plan:
            self.choice.progress.stage("choose", f"several processes or one: {best} over {alone}")
            last = self.choice.tried(alone, best, calls, logs / "last")
            wins = last.accepted
            trials.append(last)
        winner, loser = (best, alone) if wins else (alone, best)
        told, lost = "the other number of processes is faster as a whole", layout_of(loser).processes
        trials = [_unkept(one, told) if layout_of(one.plan).processes == lost else one for one in trials]
        if not wins:
            self.choice.progress.note(f"one process is faster: {start.plan} takes {start.speedup} of its speed")
        return dataclasses.replace(self.choice.confirmed(winner, calls, logs), trials=tuple(trials))


def _unkept(trial: StepTrial, why: str) -> StepTrial:
    """A trial that was kept for a while, as one that was not."""
    return dataclasses.replace(trial, accepted=False, reason=why) if trial.accepted else trial


def scaling_of(chosen: StepTrial, timed: Sequence[StepTrial]) -> Scaling | None:
    """What layouts were timed to take beside one process, the one that techniques were added to before all."""
    counts = [
        Count(layout_of(one.plan).processes, str(layout_of(one.plan)), one.over_seconds, one.seconds, one.speedup)
        for one in timed
        if one.over_seconds is not None and one.seconds is not None and one.speedup is not None
    ]
    mine = next((one for one in counts if one.layout == str(layout_of(chosen.plan))), None)
    if mine is None:
        return None
    return Scaling(mine.processes, mine.one_seconds, mine.step_seconds, tuple(counts))
