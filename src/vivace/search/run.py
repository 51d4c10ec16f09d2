"""The search from beginning to end: prepare, noise floor, ladder and race while time lasts, confirmation, verdict."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vivace.core.errors import UsageError
from vivace.core.machine import Machine
from vivace.core.plan import Plan
from vivace.core.result import Result, Status, Trial, TrialStage
from vivace.devices.roofline import TINY_SECONDS
from vivace.measure import environment, stats
from vivace.measure.claims.conclude import exponential, noise_floor_of
from vivace.search.account.bench import Bench
from vivace.search.account.cores import cores_of
from vivace.search.account.payback import break_even_calls
from vivace.search.journal import Journal
from vivace.search.laboratory import Laboratory
from vivace.search.listener import Listener
from vivace.search.options import Options
from vivace.search.order.memory import Memory, Strategy
from vivace.search.prepare import Prepared
from vivace.search.rank import Ranking
from vivace.search.schedule import Schedule
from vivace.search.space import Space
from vivace.search.strategy import default_strategy, exhaustive_strategy, missed, single_strategy
from vivace.search.trials import readable_trial, trial_to_json
from vivace.search.verdict.ahead import Interpreters
from vivace.search.verdict.conclude import Conclusion
from vivace.search.verdict.confirm import Deliver

NOISE_ATTEMPTS = 3
DISTURBED = 0.1
NOISE_SHARE = 0.75
"""Of the user's time that must be left for another pair."""


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
    ) -> None:
        self.prepared = prepared
        self.space = space
        self.options = options
        self.machine = machine
        self.folder = folder
        self.journal = journal
        self.listener = listener
        self.schedule = Schedule(options.seconds, started, options.restarts)

    def run(self, deliver: Deliver) -> Result:
        """Search until the time is up or nothing is left to try, confirm, and conclude."""
        before = environment.snapshot()
        with Laboratory(self.prepared, self.options, self.folder) as laboratory:
            self.listener.stage("baseline", "the original answers what candidates are judged by")
            seconds = laboratory.learn_original()
            self.listener.stage("noise", "the original against itself")
            same = self._against_itself(laboratory)
            floor = _floor_of(same)
            self.schedule.opening_seconds = laboratory.opening_seconds
            self.schedule.race_opening_seconds = laboratory.race_opening_seconds
            self.schedule.warmed_seconds = laboratory.warmed_seconds
            self.schedule.loading_seconds = laboratory.loading_seconds
            self.schedule.is_disturbed = floor >= DISTURBED
            ahead = Interpreters(self.prepared.original, laboratory.variables)
            self.schedule.pairs_ahead, self.schedule.is_check_ahead = ahead.pairs_ahead, ahead.is_check_ahead
            self.schedule.call_seconds, self.schedule.is_tiny = seconds, seconds < TINY_SECONDS
            self.listener.note(f"the original takes {1000 * seconds:.3g} ms a call; noise floor {floor:.1%}")
            memory = self._memory(seconds, laboratory.baseline().ask("environment")["threads"])
            self._explore(laboratory, memory)
            untold = self._missed(memory)
            result = self._conclusion(laboratory, memory, deliver, floor).reach()
            result = dataclasses.replace(self._accounted(laboratory, result), noise_ratios=tuple(map(math.exp, same)))
            batch_invariant = True if laboratory.invariance.is_asked else None
        conditions = {
            "machine": self.machine.to_json(),
            "environment": before,
            "versions": before["versions"],
            "disturbance": environment.disturbance(before, environment.snapshot()),
            "batch_size": self.prepared.batch_size,
            "batch_invariant": batch_invariant,
            **self._mix(),
            **self._platform(),
            "baseline_seconds": seconds,
            "objective": self.options.objective.value,
            "seconds_allowed": self.options.seconds,
            **({} if self.options.calls is None else {"calls": self.options.calls}),
            "timed_region": "one call of the model: tensors in, tensors out; loading and compiling apart",
        }
        return dataclasses.replace(
            result,
            left_out=self.space.left_out,
            cores=cores_of(result.candidates, self.machine.cores_allowed),
            notes=(*result.notes, *untold),
            conditions=conditions,
            wall_seconds=self.options.seconds - self.schedule.left(),
        )

    def _conclusion(self, laboratory: Laboratory, memory: Memory, deliver: Deliver, floor: float) -> Conclusion:
        def attempt(plan: Plan) -> Trial:
            return self._try(laboratory, memory, plan, TrialStage.SEARCH)

        facts = self.space.facts
        return Conclusion(
            laboratory, memory, self.schedule, deliver, self.journal, self.listener, floor, facts, attempt
        )

    def _mix(self) -> dict[str, Any]:
        """The shapes that calls come in, where there are several, with their weights, in the order of every
        `ArmTimes.shape_seconds`."""
        examples = self.prepared.examples
        if not examples.is_mixed:
            return {}
        named = [{"shape": examples.name(i), "weight": weight} for i, weight in enumerate(examples.weights)]
        return {"mix": named}

    def _platform(self) -> dict[str, str]:
        """What XLA's programs ran on, where the job was told."""
        platform = self.prepared.platform
        if platform is None or not platform.kinds:
            return {}
        kinds = " and ".join(f"{platform.kinds.count(kind)} x {kind}" for kind in dict.fromkeys(platform.kinds))
        return {"xla_ran_on": f"{platform.name} (the first of {kinds})"}

    def _accounted(self, laboratory: Laboratory, result: Result) -> Result:
        """The result with what each technique of the winner is worth, and with when it has paid for itself."""
        if result.status is not Status.FASTER:
            return result
        bench = Bench(laboratory, self.schedule, self.listener, result)
        return dataclasses.replace(
            result,
            attribution=bench.attribute(self.space.facts),
            break_even_calls=break_even_calls(bench.winner),
        )

    def _against_itself(self, laboratory: Laboratory) -> list[float]:
        """The log of each block's ratio of the original to itself, from which the smallest claim follows.

        While the blocks so far call the original very different from itself, further pairs are measured and all of them
        count: at most NOISE_ATTEMPTS pairs, while most of the time is left.
        """
        log_ratios: list[float] = []
        for attempt in range(NOISE_ATTEMPTS):
            log_ratios += laboratory.noise()
            floor = _floor_of(log_ratios)
            if floor < DISTURBED or self.schedule.left() < NOISE_SHARE * self.options.seconds:
                break
            self.listener.note(f"noise floor {floor:.1%} after pair {attempt + 1}: the machine is disturbed")
        return log_ratios

    def _memory(self, seconds: float, threads: int) -> Memory:
        """What is known: the baseline's time, and the trials of an earlier session of the same job."""
        ranking = Ranking.on(self.machine, self.prepared.work.cost)
        ranking.learn(Plan(), seconds)
        memory = Memory(ranking, seconds, self.options.merit, threads)
        for record in self.journal.of_kind("trial"):
            trial = readable_trial(record.get("trial"), self.options.known)
            if trial is not None and all(technique.name() in self.space.settings for technique in trial.plan):
                memory.record(trial.plan, trial)
        if memory.tried:
            self.listener.note(
                f"{len(memory.tried)} trials are known from an earlier session; they choose who is "
                "confirmed, and every number of the verdict is measured anew"
            )
        return memory

    def _explore(self, laboratory: Laboratory, memory: Memory) -> None:
        """Try plans while there is time for another and for the confirmation."""
        memory.has_time_for = lambda plan: self.schedule.time_for_a_trial(plan, *memory.ends)
        memory.has_time_for_first = self.schedule.time_for_first_trials
        strategy = self._strategy(memory)
        request = next(strategy, None)
        while request is not None:
            plan, stage = request
            self.listener.stage("search", f"{len(memory.tried) + 1}: {plan}")
            trial = self._try(laboratory, memory, plan, stage)
            try:
                request = strategy.send(trial)
            except StopIteration:
                request = None
            best = memory.leader
            self.listener.trial(
                plan, trial.outcome, trial.speedup, best.speedup if best else None, self.schedule.left()
            )
        strategy.close()

    def _missed(self, memory: Memory) -> list[str]:
        """What the user should know of plans for which there was no time."""
        if self.options.plan is not None or self.options.exhaustive or not self.options.by_speed:
            return []
        plans = missed(self.space, memory)
        if not plans:
            return []
        promised = memory.baseline_seconds / memory.ranking.predicted_seconds(plans[0])
        others = f" and {len(plans) - 1} more" if len(plans) > 1 else ""
        told = (
            f"there was no time left for plans that promise more: {plans[0]} (PREDICTED {promised:.1f} times as fast "
            f"as the original){others}; give the search more time (--time)"
        )
        self.listener.note(told)
        return [told]

    def _strategy(self, memory: Memory) -> Strategy:
        if self.options.plan is not None:
            return single_strategy(self.options.plan, memory)
        make = exhaustive_strategy if self.options.exhaustive else default_strategy
        return make(self.space, memory)

    def _try(self, laboratory: Laboratory, memory: Memory, plan: Plan, stage: TrialStage) -> Trial:
        """One trial, in the journal as soon as it ended."""
        before = self.schedule.left()
        predicted = memory.baseline_seconds / memory.ranking.predicted_seconds(plan)
        trial = laboratory.attempt(plan, stage, self.schedule.allowed(*memory.ends))
        started, ended = (self.options.seconds - left for left in (before, self.schedule.left()))
        trial = trial.replace(
            predicted_speedup=predicted, reproduce=reproduce(plan), started_seconds=started, ended_seconds=ended
        )
        self.schedule.tried(plan, ended - started, was_raced=trial.speedup is not None)
        self.journal.append({"kind": "trial", "trial": trial_to_json(trial)})
        return trial


def _floor_of(log_ratios: Sequence[float]) -> float:
    """The smallest effect that a session may claim whose original differed from itself by this much."""
    return noise_floor_of(exponential(stats.hodges_lehmann(log_ratios)))


def reproduce(plan: Plan) -> str:
    """The command that tries this plan alone; TARGET is what the user optimized."""
    return f"vivace optimize TARGET --plan {shlex.quote(json.dumps(plan.to_json()))}"


def identity_of(prepared: Prepared, machine: Machine, options: Options) -> Mapping[str, Any]:
    """What must be equal for an earlier session's trials to be of use."""
    return {
        "job": prepared.identity,
        "machine": machine.fingerprint,
        "gate": options.gate.value,
        "drop": options.budget.drop,
        "relative": options.budget.relative,
        "objective": options.objective.value,
        "keep": list(prepared.work.keep),
        "metric": getattr(options.metric, "__qualname__", str(options.metric)),
        "loss": prepared.lesson and getattr(prepared.lesson.loss, "__qualname__", str(prepared.lesson.loss)),
        "versions": environment.snapshot()["versions"],
    }


def open_journal(folder: Path, identity: Mapping[str, Any], resume: bool) -> Journal:
    """The run's journal, with a header. Raises UsageError when an earlier session was of another job."""
    journal = Journal(folder / "journal.jsonl")
    headers = journal.of_kind("header")
    earlier = headers[0].get("identity") if headers else None
    if resume and headers and earlier != dict(identity):
        told = earlier if isinstance(earlier, dict) else {}
        changed = sorted(key for key, value in identity.items() if told.get(key) != value)
        journal.close()
        raise UsageError(
            f"--resume: the earlier search in {folder} had another {', '.join(changed)}; run without "
            "--resume to start anew"
        )
    if not headers:
        journal.append({"kind": "header", "identity": dict(identity)})
    return journal
