"""The search from beginning to end: prepare, noise floor, ladder and race while time lasts, confirmation, verdict."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from vivace.core.errors import UsageError, WorkerFailure
from vivace.core.machine import Machine
from vivace.core.measurement import Interval, Outcome
from vivace.core.plan import Plan
from vivace.core.quality import Quality, QualityVerdict
from vivace.core.result import Result, Rung, Status, Trial
from vivace.devices.roofline import predicted_seconds
from vivace.measure import environment
from vivace.measure.clock import SystemClock
from vivace.measure.paired import StopRule
from vivace.search.confirm import Deliver, best_of, confirm, timed
from vivace.search.journal import Journal
from vivace.search.laboratory import Laboratory
from vivace.search.options import Options
from vivace.search.prepare import Prepared
from vivace.search.rank import Ranking
from vivace.search.space import Space
from vivace.search.strategy import Memory, default_strategy, exhaustive_strategy, is_rung, may_win
from vivace.search.trials import trial_from_json, trial_to_json

FIRST_GUESS_SECONDS = 8.0
"""How long a trial or the opening of a pair takes, before any was seen."""


class Listener(Protocol):
    """What a search tells while it runs; `report.progress.Progress` is one."""

    def stage(self, name: str, detail: str = "") -> None:
        """A stage began."""

    def trial(
        self, plan: Plan | str, outcome: Outcome, speedup: Interval | None, best: Interval | None, left_seconds: float
    ) -> None:
        """One plan was tried."""

    def note(self, text: str) -> None:
        """Something worth reading now."""


class Search:
    """One search over a prepared job. `started` is the clock's reading when the user's time began to run."""

    def __init__(
        self,
        prepared: Prepared,
        space: Space,
        options: Options,
        machine: Machine,
        folder: Path,
        journal: Journal,
        listener: Listener,
        started: float,
        seed: int = 0,
    ) -> None:
        self.prepared = prepared
        self.space = space
        self.options = options
        self.machine = machine
        self.folder = folder
        self.journal = journal
        self.listener = listener
        self._clock = SystemClock()
        self._started = started
        self._seed = seed
        self._trial_seconds: list[float] = []
        self._open_seconds = FIRST_GUESS_SECONDS

    def run(self, deliver: Deliver) -> Result:
        """Search until the time is up or nothing is left to try, confirm, and conclude."""
        before = environment.snapshot()
        with Laboratory(self.prepared, self.options, self.folder) as laboratory:
            self.listener.stage("baseline", "the original answers what candidates are judged by")
            opened = self._clock.now()
            seconds = laboratory.learn_original()
            self._open_seconds = self._clock.now() - opened
            self.listener.stage("noise", "the original against itself")
            floor = _floor(laboratory.noise())
            self.listener.note(f"the original takes {1000 * seconds:.3g} ms a call; noise floor {floor:.1%}")
            memory = self._memory(seconds)
            self._explore(laboratory, memory)
            result = self._conclude(laboratory, memory, deliver, floor)
        conditions = {
            "machine": self.machine.to_json(),
            "environment": before,
            "versions": before["versions"],
            "disturbance": environment.disturbance(before, environment.snapshot()),
            "batch_size": self.prepared.batch_size,
            "baseline_seconds": seconds,
            "timed_region": "one call of the model: tensors in, tensors out; loading and compiling apart",
        }
        return dataclasses.replace(result, conditions=conditions, wall_seconds=self._clock.now() - self._started)

    def _memory(self, seconds: float) -> Memory:
        """What is known: the baseline's time, and the trials of an earlier session of the same job."""
        ranking = Ranking(self.prepared.work.cost, lambda cost: predicted_seconds(cost, self.machine))
        ranking.learn(Plan(), seconds)
        memory = Memory(ranking, seconds, self.options.merit)
        for record in self.journal.of_kind("trial"):
            trial = trial_from_json(record["trial"], self.options.known)
            memory.record(trial.plan, trial)
        if memory.tried:
            self.listener.note(
                f"{len(memory.tried)} trials are known from an earlier session; they choose who is "
                "confirmed, and every number of the verdict is measured anew"
            )
        return memory

    def _explore(self, laboratory: Laboratory, memory: Memory) -> None:
        """Try plans while there is time for another and for the confirmation."""
        make = exhaustive_strategy if self.options.exhaustive else default_strategy
        strategy = make(self.space, memory)
        request = next(strategy, None)
        while request is not None and self._time_for_a_trial():
            plan, stage = request
            self.listener.stage("search", f"{len(memory.tried) + 1}: {plan}")
            started = self._clock.now()
            allowed = self._left() - self._reserve()
            trial = laboratory.attempt(plan, stage, memory.leader, allowed)
            trial = trial.replace(
                predicted_speedup=memory.baseline_seconds / memory.ranking.predicted_seconds(plan),
                reproduce=reproduce(plan),
            )
            self._trial_seconds.append(self._clock.now() - started)
            self.journal.append({"kind": "trial", "trial": trial_to_json(trial)})
            try:
                request = strategy.send(trial)
            except StopIteration:
                request = None
            best = memory.leader
            self.listener.trial(plan, trial.outcome, trial.speedup, best.speedup if best else None, self._left())
        strategy.close()

    def _conclude(self, laboratory: Laboratory, memory: Memory, deliver: Deliver, floor: float) -> Result:
        """Confirm finalists in the order of the race, the best rung of the ladder too, and choose."""
        confirmed: list[Trial] = []
        rung: Rung | None = None
        finalists = self._finalists(memory)
        rule = self._rule()
        for number, trial in enumerate(finalists):
            if number and best_of(confirmed, self.options) and not self._time_to_confirm():
                break
            self.listener.stage("confirm", f"{number + 1} of {len(finalists)}: {trial.plan}")
            started = self._clock.now()
            trial = confirm(laboratory, trial, deliver, floor, rule, len(finalists))
            self._trial_seconds.append(self._clock.now() - started)
            self.journal.append({"kind": "confirmed", "plan": str(trial.plan), "outcome": trial.outcome.value})
            confirmed.append(trial)
            memory.tried[trial.plan] = trial
            if rung is None and best_of(confirmed, self.options) is not None:
                rung = self._rung(laboratory, memory, confirmed, floor, rule)
        return self._verdict(laboratory, memory, deliver, confirmed, rung, floor)

    def _finalists(self, memory: Memory) -> list[Trial]:
        """The best few of the race that beat the original there; near certain to hold the budget before the others."""
        fit = [trial for trial in memory.tried.values() if may_win(trial)]
        if self.options.by_speed:
            fit = [trial for trial in fit if trial.speedup is not None and trial.speedup.value > 1.0]
        fit.sort(key=self.options.merit, reverse=True)
        return fit[: self.options.finalists]

    def _rung(
        self, laboratory: Laboratory, memory: Memory, confirmed: list[Trial], floor: float, rule: StopRule
    ) -> Rung | None:
        """The best plain rung, measured like a finalist, when there is time for it."""
        for trial in confirmed:
            if is_rung(trial.plan) and trial.confirmed is not None:
                return Rung(trial.plan, trial.confirmed)
        rungs = [t for t in memory.tried.values() if is_rung(t.plan) and may_win(t) and t.speedup is not None]
        if not rungs or not self._time_to_confirm():
            return None
        best = max(rungs, key=lambda trial: trial.speedup.value if trial.speedup else 0.0)
        self.listener.stage("confirm", f"best plain rung: {best.plan}")
        try:
            laboratory.build(best.plan)
            return Rung(best.plan, timed(laboratory, best.plan, laboratory.spec(best.plan), floor, rule))
        except WorkerFailure as failure:
            self.listener.note(f"the best rung could not be confirmed: {failure}")
            return None

    def _verdict(
        self,
        laboratory: Laboratory,
        memory: Memory,
        deliver: Deliver,
        confirmed: list[Trial],
        rung: Rung | None,
        floor: float,
    ) -> Result:
        winner = best_of(confirmed, self.options)
        if winner is not None and winner.confirmed is not None and winner.quality is not None:
            status, plan, comparison, quality = Status.FASTER, winner.plan, winner.confirmed, winner.quality
        else:
            unsure = any(t.outcome is Outcome.QUALITY_UNKNOWN for t in memory.tried.values())
            status = Status.QUALITY_UNCERTIFIED if unsure else Status.NOTHING_FASTER
            self.listener.stage("confirm", "nothing won: the original is kept, and measured as an artifact")
            plan, spec = Plan(), deliver(Plan(), self.prepared.program)
            comparison = timed(laboratory, plan, spec, floor, self._rule())
            quality = Quality(QualityVerdict.HELD, "the original itself", self.prepared.confirm.samples, 0.0)
        trials = tuple(memory.tried.values())
        notes = (*self.prepared.notes, *([comparison.note] if comparison.note else ()), *self._slower(trials))
        return Result(self.prepared.work.name, status, plan, comparison, quality, rung, trials, floor, {}, notes)

    def _slower(self, trials: tuple[Trial, ...]) -> tuple[str, ...]:
        count = sum(t.outcome is Outcome.NOT_FASTER for t in trials)
        return (f"{count} plans were slower than the original",) if count else ()

    def _rule(self) -> StopRule:
        """How long a confirmation may measure: an eighth of the time, between 4 and 30 seconds."""
        return StopRule(
            half_width=0.01,
            min_blocks=12,
            max_blocks=60,
            warm_seconds=3.0,
            max_seconds=min(30.0, max(4.0, self.options.seconds / 12)),
        )

    def _left(self) -> float:
        return self.options.seconds - (self._clock.now() - self._started)

    def _confirm_seconds(self) -> float:
        """What one confirmation takes: each restart opens two arms, and the judge one."""
        openings = 1 + 2 * self.options.restarts
        return 0.6 * openings * self._open_seconds + self._rule().max_seconds

    def _reserve(self) -> float:
        return 1.5 * self._confirm_seconds()

    def _time_to_confirm(self) -> bool:
        return self._left() > self._confirm_seconds()

    def _time_for_a_trial(self) -> bool:
        recent = self._trial_seconds[-5:]
        expected = sum(recent) / len(recent) if recent else FIRST_GUESS_SECONDS
        return self._left() > self._reserve() + expected


def reproduce(plan: Plan) -> str:
    """The end of a command that tries this plan alone."""
    return "vivace optimize TARGET --only " + ",".join(t.name() for t in plan)


def identity_of(prepared: Prepared, machine: Machine, options: Options) -> Mapping[str, Any]:
    """What must be equal for an earlier session's trials to be of use."""
    return {
        "job": prepared.identity,
        "machine": machine.fingerprint,
        "gate": options.gate.value,
        "drop": options.budget.drop,
        "relative": options.budget.relative,
        "versions": environment.snapshot()["versions"],
    }


def open_journal(folder: Path, identity: Mapping[str, Any], resume: bool) -> Journal:
    """The run's journal, with a header. Raises UsageError when an earlier session was of another job."""
    journal = Journal(folder / "journal.jsonl")
    headers = journal.of_kind("header")
    if resume and headers and headers[0]["identity"] != dict(identity):
        changed = sorted(key for key, value in identity.items() if headers[0]["identity"].get(key) != value)
        journal.close()
        raise UsageError(
            f"--resume: the earlier search in {folder} had another {', '.join(changed)}; run without "
            "--resume to start anew"
        )
    if not headers:
        journal.append({"kind": "header", "identity": dict(identity)})
    return journal


def _floor(same: Interval) -> float:
    """The farther end of the A/A interval from 1, as a share: the smallest effect that may be claimed."""
    return math.expm1(max(abs(math.log(same.low)) if same.low > 0 else math.inf, abs(math.log(same.high))))
