"""Finds the plan of a training: techniques one by one, proved and timed against the best so far, then confirmed."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from vivace.api.parity import Comparing, compared
from vivace.api.request import machine_of, offered
from vivace.api.together.arm import VARIABLES, arm_of
from vivace.api.training_request import as_asked
from vivace.core import registry
from vivace.core.cost import Cost
from vivace.core.errors import UsageError, WorkerFailure, unknown_name
from vivace.core.facts import OF_THE_MACHINE
from vivace.core.measurement import Comparison, Outcome, SpeedVerdict
from vivace.core.plan import Plan
from vivace.core.quality import QualityVerdict
from vivace.core.signature import Signature
from vivace.core.structure import Structure
from vivace.core.technique import Effect
from vivace.core.training.job import Training
from vivace.core.training.parity import Parity
from vivace.core.training.run import Diagnosis, Scaling, StepTrial
from vivace.core.work import Work
from vivace.data import samples
from vivace.distributed.team import Team
from vivace.measure.clock import SystemClock
from vivace.measure.forking import client
from vivace.measure.paired import ArmSpec, StopRule, compare, measure_noise
from vivace.measure.process import Limits
from vivace.report.progress import Progress, SilentProgress
from vivace.search.rank import without
from vivace.search.training.choose import (
    LEAST_GAIN,
    START,
    facts_of,
    greedy,
    pays_after,
    refusals,
    settings_of,
)
from vivace.search.training.ending import Ending
from vivace.search.training.promise import Promising, no_time
from vivace.techniques.parallel.layouts import layout_of
from vivace.training.feed import feed_of

RACE = StopRule(half_width=0.02, min_blocks=8, max_blocks=40, max_seconds=3.0, warm_seconds=2.0)
CONFIRM = StopRule(half_width=0.01, min_blocks=12, max_blocks=60, max_seconds=9.0, warm_seconds=2.0)
SURE_GAIN = 1.3
"""A smaller gain must show in a second pair of processes too: pairs differ by more than the blocks of one explain."""
NOTICED_SECONDS = 1.0
"""A first step that takes this much longer must pay for itself within the training; less is within the noise."""
TAKES_STEP = "it takes the step as a whole, which a hand-written loop does itself; vv.train can use it"
PROVED_STEPS, CONFIRMED_STEPS = 2, 3
"""Steps whose tensors are compared: of each plan that is tried, and of the one that is delivered."""
CHANGED_SEEDS = 3
"""Seeds from which a plan that changes the computation by design is trained beside the original before it is used."""


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The plan, everything that was tried, and the confirmation and the proof of the plan, where it is not empty.
    `noise_ratios` are those of the original against itself, `scaling` is what steps of several processes took."""

    plan: Plan
    trials: tuple[StepTrial, ...] = ()
    comparison: Comparison | None = None
    parity: Parity | None = None
    noise_ratios: tuple[float, ...] = ()
    scaling: Scaling | None = None


@dataclasses.dataclass(frozen=True)
class Choice:
    """What may be chosen for a job, and how long that may take, what follows the trials included. `changed` allows what
    changes the computation; `own_loop` leaves out what takes the step as a whole, which the user's own loop cannot
    hold. Plans of several processes are tried with as many, as patient as `team` is.
    """

    job: Training
    seconds: float
    only: Sequence[str]
    without: Sequence[str]
    changed: bool
    limits: Limits
    progress: Progress
    own_loop: bool = False
    diagnosis: Diagnosis | None = None
    team: Team | None = None
    ending: Ending = dataclasses.field(default_factory=lambda: Ending(spared_seconds=client.spared_seconds))

    def __post_init__(self) -> None:
        known = registry.techniques()
        for name in (*self.only, *self.without):
            if name not in known:
                raise unknown_name("technique", name, known)

    def after(self, found: Diagnosis, seconds: float) -> Choice:
        """What is left to be chosen once a diagnosis was made, which took so many seconds."""
        ending = dataclasses.replace(self.ending, diagnosis_seconds=seconds)
        return dataclasses.replace(self, diagnosis=found, seconds=self.seconds - seconds, ending=ending)

    def make(self) -> Chosen:
        """Search, confirm, prove."""
        with stepping_calls() as (calls, logs):
            plan, trials = self.search(Plan(), self.seconds, calls, logs)
            return dataclasses.replace(self.confirmed(plan, calls, logs), trials=tuple(trials))

    def asked(self, plan: Plan) -> Chosen:
        """`proved`, of a plan that somebody named. Raises UsageError where it does not fit the job, EnvironmentFault
        where the machine lacks what it needs."""
        try:
            return self.proved(plan)
        except WorkerFailure as failure:
            raise as_asked(failure, plan) from failure

    def proved(self, plan: Plan) -> Chosen:
        """A plan that was asked for, without timing it; where its steps are not the same, the plan without the one
        technique that makes them so, and else the original."""
        if not len(plan):
            return Chosen(plan)
        reason = plan.illegal(START | OF_THE_MACHINE)  # what the machine lacks, the techniques say themselves
        if reason is not None:
            raise UsageError(f"the plan {plan} is not possible: {reason}")
        self.progress.stage("prove", f"{plan}: {CONFIRMED_STEPS} steps against float64")
        proof = self._proof(plan, CONFIRMED_STEPS)
        if proof.verdict is not QualityVerdict.NOT_HELD:
            return Chosen(plan, parity=proof)
        for technique in reversed(plan.techniques):
            rest = without(plan, technique)
            if not len(rest) or rest.illegal(START | OF_THE_MACHINE) is not None:
                continue
            self.progress.stage("prove", f"{rest}: without {technique}")
            again = self._proof(rest, CONFIRMED_STEPS)
            if again.verdict is not QualityVerdict.NOT_HELD:
                told = f"{technique} trains differently and is left out alone: {proof.reason}"
                self.progress.note(told)
                return Chosen(rest, parity=dataclasses.replace(again, notes=(*again.notes, told)))
        self.progress.note(f"it trains differently, so the original is kept: {proof.reason}")
        return Chosen(Plan(), parity=proof)

    def search(
        self, start: Plan, seconds: float, calls: Path, logs: Path, is_last: bool = True
    ) -> tuple[Plan, list[StepTrial]]:
        """Add techniques to a plan for as long as is allowed, less what is kept for its ending where this `is_last`:
        the best plan, and what was tried. Of one process's plans the first is tried in any case. What cannot stand
        beside the plan to start from is told first."""
        device = "cpu" if self.diagnosis is None else self.diagnosis.device
        known, machine, clock = registry.techniques(), offered(machine_of("auto"), device), SystemClock()
        settings = settings_of(self._work(), machine, known, self.only, self.without, self.changed)
        order = None if self.diagnosis is None else Promising(settings, self.diagnosis, start)
        facts = facts_of(machine, device)
        strategy = greedy(settings if order is None else order, facts, start)
        trials = refusals(settings, facts, start)
        started, best, is_tried = clock.now(), start, self.team is not None
        with contextlib.suppress(StopIteration):
            plan = next(strategy)
            while True:
                left = seconds - (clock.now() - started) - (self.ending.seconds(best) if is_last else 0.0)
                refused = None if order is None else order.refusal(best, plan)
                if refused is None and is_tried:
                    refused = no_time(best, plan, left)
                if refused is not None:
                    self._not_tried(refused, trials)
                    plan = strategy.send(refused)
                    continue
                if is_tried and left < (self.ending.trial_seconds() if is_last else 0.0):
                    self.progress.note(
                        f"the time for choosing is over; not tried: {plan}, and what would have followed"
                    )
                    break
                self.progress.stage("choose", f"{len(trials) + 1}: {plan}")
                trial = self.tried(best, plan, calls, logs / str(len(trials)))
                trials.append(trial)
                is_tried = is_tried or trial.outcome is not Outcome.UNSUPPORTED  # which was raced with nothing
                if trial.accepted:
                    best = plan
                    if order is not None:
                        order.after(trial)
                self.progress.trial(plan, trial.outcome, trial.speedup, None, left)
                plan = strategy.send(trial)
        return best, trials

    def _not_tried(self, refused: StepTrial, trials: list[StepTrial]) -> None:
        """Keep and tell why a plan is not tried, once for all that the same reason is against."""
        told = {one.reason for one in trials}
        if refused.reason not in told:
            trials.append(refused)
            self.progress.note(f"not tried: {refused.brought}: {refused.reason}")

    def tried(self, best: Plan, plan: Plan, calls: Path, logs: Path) -> StepTrial:
        """One plan against the best so far: the same gradients first, then faster steps."""
        clock = SystemClock()
        began = clock.now()
        try:
            proof = self._proof(plan, PROVED_STEPS)
            self.ending.proofs[plan] = clock.now() - began
            if proof.verdict is QualityVerdict.NOT_HELD:
                return StepTrial(plan, Outcome.QUALITY_FAILED, None, 0.0, False, proof.reason, proof.notes)
            if self.own_loop and proof.whole_step:
                return StepTrial(plan, Outcome.UNSUPPORTED, None, 0.0, False, TAKES_STEP)
            began = clock.now()
            found = self._race(best, plan, calls, logs)
            self.ending.races[plan] = clock.now() - began
            is_small = found.speedup.low > LEAST_GAIN and found.speedup.value < SURE_GAIN
            again = self._race(best, plan, calls, logs / "again") if is_small else found
        except WorkerFailure as failure:
            return StepTrial(plan, failure.outcome, None, 0.0, False, failure.reason, over=best)
        except UsageError as error:
            if layout_of(plan).processes == 1:  # it is about the job, and ends the search
                raise
            return StepTrial(plan, Outcome.UNSUPPORTED, None, 0.0, False, str(error), over=best)
        outcome = Outcome.NOT_FASTER if found.verdict is SpeedVerdict.SLOWER else Outcome.OK
        first, before = found.candidate.first_call_seconds, found.baseline.first_call_seconds
        after = pays_after(first, before, found.baseline.median_seconds - found.candidate.median_seconds)
        reason = ""
        if found.speedup.low <= LEAST_GAIN:
            reason = f"{found.speedup} over {best}, which is not clearly faster"
        elif again.speedup.low <= LEAST_GAIN:
            reason = f"{found.speedup} over {best}, and {again.speedup} in a second pair of processes"
        elif first - before > NOTICED_SECONDS and after is not None and after > (self.steps() or after):
            reason = (
                f"{found.speedup} over {best}; its first step takes {first - before:.2g} s longer, which {after} steps "
                f"pay back, and this training has {self.steps()}"
            )
        prepare_seconds = found.candidate.load_seconds + first
        medians = (found.candidate.median_seconds, found.baseline.median_seconds)
        return StepTrial(
            plan, outcome, found.speedup, prepare_seconds, not reason, reason, proof.notes, best, after, *medians
        )

    def _race(self, best: Plan, plan: Plan, calls: Path, logs: Path) -> Comparison:
        """A plan's steps against those of the best so far, in one pair of processes."""
        sides = (self._arm(best), self._arm(plan))
        if max(layout_of(one).processes for one in (best, plan)) == 1:
            return compare(*sides, calls, logs, rule=RACE, limits=self.limits, fresh=False)
        return compare(*sides, calls, logs, rule=RACE, limits=self.limits, environment_variables=VARIABLES)

    def _proof(self, plan: Plan, steps: int) -> Parity:
        """By single steps; to be trained with, what changes the computation by design is judged by its losses too."""
        team = None if self.team is None else dataclasses.replace(self.team, restarts=0)
        seeds = CHANGED_SEEDS if plan.training_effect is Effect.CHANGED and steps == CONFIRMED_STEPS else 0
        return compared(self.job, plan, Comparing(steps, seeds), team, SilentProgress(), self.limits)

    def steps(self) -> int | None:
        """Steps of the whole training; None where only walking the data tells."""
        steps = feed_of(self.job).steps()
        return None if steps is None else steps * self.job.epochs

    def _work(self) -> Work:
        """What techniques are asked for their settings with: a training has no program, but its work is counted."""
        work = no_work()
        if self.diagnosis is None:
            return work
        found = self.diagnosis
        cost = work.cost.replace(flops=max(found.flops, 1.0), activation_bytes=float(found.activation_bytes))
        return dataclasses.replace(work, cost=cost)

    def confirmed(self, plan: Plan, calls: Path, logs: Path, is_asked: bool = False) -> Chosen:
        """The plan against the original, from scratch and as a whole; the original where that does not hold, unless it
        `is_asked` for. Processes that train together prove once more that they do so as one, when they begin."""
        chosen = self.proved(plan) if layout_of(plan).processes == 1 else Chosen(plan)
        plan = chosen.plan
        if not len(plan):
            return chosen
        self.progress.stage("noise", "the original against itself")
        same = measure_noise(
            self._arm(Plan()), calls, logs / "noise", rule=RACE, limits=self.limits, environment_variables=VARIABLES
        )
        found = self.against(Plan(), plan, calls, logs / "confirm", same.noise_floor)
        trains = plan if is_asked else trained_with(plan, found.verdict)
        if is_asked and found.verdict is SpeedVerdict.SLOWER:
            self.progress.note(f"{plan} was asked for, and is slower than one process: {found.speedup}")
        if trains != plan:
            told = f"{plan} was confirmed as {found.speedup}, {found.verdict.value}"
            self.progress.note(f"{told}: it is not shown to be faster, so the original is kept")
        ratios = tuple(itertools.chain.from_iterable(same.ratios))
        return dataclasses.replace(chosen, plan=trains, comparison=found, noise_ratios=ratios)

    def against(self, one: Plan, plan: Plan, calls: Path, logs: Path, noise_floor: float = 0.0) -> Comparison:
        """A plan's steps against those of another one, in three fresh pairs of processes."""
        self.progress.stage("confirm", f"{plan} over {one}: three fresh pairs of processes")
        return compare(
            self._arm(one), self._arm(plan), calls, logs, rule=CONFIRM, restarts=3, noise_floor=noise_floor,
            limits=self.limits, environment_variables=VARIABLES,
        )  # fmt: skip

    def _arm(self, plan: Plan) -> ArmSpec:
        return arm_of(self.job, plan, self.team)


def trained_with(plan: Plan, verdict: SpeedVerdict) -> Plan:
    """The plan, if its confirmation showed it to be faster; else the original, which is never lost to a guess."""
    return plan if verdict is SpeedVerdict.FASTER else Plan()


@contextlib.contextmanager
def stepping_calls() -> Iterator[tuple[Path, Path]]:
    """The folder of the one call that arms of steps are given, which take nothing from it; and one for logs."""
    with tempfile.TemporaryDirectory(prefix="vivace-") as name:
        call = Structure("dict", (Structure("tensor"),), ("step",))
        yield samples.write(Path(name) / "calls", [[torch.zeros(1)]], call, 1), Path(name) / "logs"


def no_work() -> Work:
    """What techniques are asked for their settings with: a training has no program to inspect."""
    nothing = Signature(Structure("dict"), 0, (), Structure("tuple"), ())
    cost = Cost(flops=1e9, weight_bytes=0, activation_bytes=0, operators=0)
    return Work("training", nothing, frozenset(), cost, Path())
