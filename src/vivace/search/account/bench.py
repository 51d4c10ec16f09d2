"""Measures the configurations that an attribution asks for, while there is time before the artifact is due."""

from __future__ import annotations

import shutil

from vivace.core.attribution import Attribution, Finding
from vivace.core.errors import EnvironmentFault, UsageError, WorkerFailure
from vivace.core.facts import Fact
from vivace.core.measurement import Comparison, Outcome
from vivace.core.plan import Plan
from vivace.core.result import Result, Trial
from vivace.measure.paired import compare
from vivace.search.account.waterfall import attribution_of
from vivace.search.identity import key_of
from vivace.search.laboratory import Laboratory
from vivace.search.listener import Listener
from vivace.search.schedule import Schedule

NO_TIME = "there was no time left to measure it"
JUDGED = (Outcome.OK, Outcome.NOT_FASTER)
"""Outcomes of trials whose answers were found right."""


class Bench:
    """Compares configurations with the original, each in one fresh pair of processes, with a short rule.

    What was confirmed is not measured again, and nothing is taken from the race. What goes wrong here is not raised:
    the winner is ready to be delivered, and a configuration that fails says why.
    """

    def __init__(self, laboratory: Laboratory, schedule: Schedule, listener: Listener, result: Result) -> None:
        self.laboratory = laboratory
        self.schedule = schedule
        self.listener = listener
        self.winner = next(trial for trial in result.candidates if trial.plan == result.plan)
        self._tried = {trial.plan: trial for trial in result.candidates}
        self._confirmed = {t.plan: t.confirmed for t in result.candidates if t.confirmed is not None}
        if result.best_rung is not None:
            self._confirmed[result.best_rung.plan] = result.best_rung.comparison

    def attribute(self, facts: frozenset[Fact]) -> Attribution:
        """The winner, technique by technique. `facts` are those that plans start from."""
        return attribution_of(self.winner.plan, facts, self.find)

    def find(self, plan: Plan) -> Finding:
        """What is known of a configuration, or can be measured in time."""
        known = self._confirmed.get(plan)
        if known is not None:
            return Finding(known.speedup, known.restarts)
        trial = self._tried.get(plan)
        if trial is not None and trial.outcome not in JUDGED:
            return _failed(trial)
        is_built = self.laboratory.program(plan).is_dir()
        if not self.schedule.time_for_a_configuration(plan, self.winner, is_built):
            return Finding(None, reason=NO_TIME)
        self.listener.stage("attribution", str(plan))
        try:
            return self._measured(plan, is_judged=trial is not None)
        except (
            UsageError,
            EnvironmentFault,
            OSError,
        ) as error:  # metric; worker or original; disk
            return Finding(None, reason=str(error))
        finally:
            if not is_built:
                shutil.rmtree(self.laboratory.program(plan), ignore_errors=True)

    def _measured(self, plan: Plan, is_judged: bool) -> Finding:
        """Build, judge, compare; in this order, so that nothing wrong is ever timed."""
        self.laboratory.build(plan, self._allowed())
        if not is_judged:
            trial = self.laboratory.examined(plan, self.laboratory.options.limits.within(self._allowed()))
            if trial.outcome is not Outcome.OK:
                return _failed(trial)
        found = self._compared(plan)
        return Finding(found.speedup, found.restarts)

    def _compared(self, plan: Plan) -> Comparison:
        laboratory = self.laboratory
        return compare(
            laboratory.prepared.original,
            laboratory.spec(plan),
            laboratory.prepared.confirm_calls,
            laboratory.folder / "attribution" / key_of(plan),
            rule=self.schedule.short_rule(),
            restarts=1,
            limits=laboratory.options.limits.within(self._allowed()),
            environment_variables=laboratory.variables,
            seed=laboratory.options.seed,
        )

    def _allowed(self) -> float:
        """Seconds that one phase may take. Raises WorkerFailure when there are none left."""
        seconds = self.schedule.allowed_for_a_phase(self.winner)
        if seconds < 1.0:
            raise WorkerFailure(Outcome.TIMEOUT, NO_TIME)
        return seconds


def _failed(trial: Trial) -> Finding:
    words = trial.outcome.value.replace("_", " ")
    return Finding(None, reason=f"{words}: {trial.reason}" if trial.reason else words)
