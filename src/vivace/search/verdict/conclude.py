"""The end of a search: finalists confirmed one by one, the best plain rung beside them, and what is delivered."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from vivace.core.errors import WorkerFailure
from vivace.core.facts import Fact
from vivace.core.measurement import Comparison, Outcome, SpeedVerdict
from vivace.core.plan import Plan
from vivace.core.quality import Gate, Quality, QualityVerdict
from vivace.core.result import Result, Rung, Status, Trial, TrialStage
from vivace.measure.live import ArmSpec
from vivace.search.account.payback import expected_total_seconds, original_total_seconds, total_seconds
from vivace.search.journal import Journal
from vivace.search.judge import verdicts_affordable
from vivace.search.laboratory import Laboratory
from vivace.search.listener import Listener
from vivace.search.order.memory import Memory, may_win
from vivace.search.schedule import Schedule
from vivace.search.strategy import is_rung
from vivace.search.verdict.chance import chance_of
from vivace.search.verdict.confirm import Deliver, beats, best_of, confirm, paired, timed
from vivace.search.verdict.finalists import choose, following
from vivace.search.verdict.simpler import Simplification


class Conclusion:
    """Confirms what a search found. `noise_floor` is the smallest effect that this session may claim, `facts` are those
    that plans start from; `attempt` tries a plan that was not tried."""

    def __init__(
        self,
        laboratory: Laboratory,
        memory: Memory,
        schedule: Schedule,
        deliver: Deliver,
        journal: Journal,
        listener: Listener,
        noise_floor: float,
        facts: frozenset[Fact],
        attempt: Callable[[Plan], Trial],
    ) -> None:
        self.laboratory = laboratory
        self.memory = memory
        self.schedule = schedule
        self.deliver = deliver
        self.journal = journal
        self.listener = listener
        self.noise_floor = noise_floor
        self.facts = facts
        self.attempt = attempt
        self.confirmed: list[Trial] = []
        self.verdicts = 1
        self.options = laboratory.options

    def reach(self) -> Result:
        """Confirm finalists in the order of the race while there is time, choose, and leave out of the winner what
        brings nothing."""
        confirmed = self.confirmed
        finalists, self.verdicts = self.finalists()
        waiting = list(finalists)
        while waiting:
            trial = following(waiting, self.schedule.time_to_judge_first)
            if self.schedule.deliverable and not self.schedule.time_to_confirm(trial):
                break
            waiting.remove(trial)
            self.listener.stage("confirm", f"{len(finalists) - len(waiting)} of {len(finalists)}: {trial.plan}")
            self._confirm(trial, self._spare(trial, next(iter(waiting), None)))
        winner = best_of(confirmed, self.options, self.laboratory.original_merit())
        told: list[str] = []
        if winner is not None:
            winner, told = self._simplified(winner)
        rung = self._rung(confirmed) if winner is not None else None
        result = self._result(confirmed, winner, rung)
        return dataclasses.replace(result, notes=(*told, *result.notes))

    def _simplified(self, winner: Trial) -> tuple[Trial, list[str]]:
        """The winner without what brings nothing, where it was chosen by its speed among other plans."""
        options = self.options
        is_one_call = options.by_speed and options.calls is None
        if not is_one_call or options.plan is not None or self.laboratory.is_exclusive:
            return winner, []
        made = Simplification(self, self.facts, self.memory.tried, self.memory.refused, self.noise_floor)
        found = made.of(winner)
        for told in made.told:
            self.listener.note(told)
        return found, made.told

    def try_rest(self, rest: Plan, winner: Trial) -> Trial | None:
        """A plan that was not tried yet, tried now; None where there is no time for that and for all that follows."""
        seconds = self.schedule.expected_seconds(rest)
        if not self.schedule.time_to_pair(winner.replace(plan=rest, confirmed=None), winner, seconds):
            return None
        self.listener.stage("search", f"{len(self.memory.tried) + 1}: {rest}")
        self.memory.record(rest, self.attempt(rest))
        return self.memory.tried[rest]

    def pair(self, rest: Trial, winner: Trial) -> Comparison | None:
        """The plan without a technique (baseline) against the winner in fresh pairs of processes; None without time."""
        if not self.schedule.time_to_pair(rest, winner):
            return None
        self.listener.stage("confirm", f"{winner.plan} beside itself less a technique: {rest.plan}")
        spare = self.schedule.spare(winner) - self.schedule.confirm_seconds(rest)
        return paired(self.laboratory, rest.plan, winner.plan, self.schedule.rule(), max(0.0, spare))

    def confirm(self, rest: Trial) -> Trial:
        """The plan confirmed as a finalist is, unless it was."""
        if rest.stage is TrialStage.FINALIST:
            return rest
        self.listener.stage("confirm", f"a simpler plan: {rest.plan}")
        return self._confirm(rest, self._spare(rest, None))

    def beats(self, rest: Trial) -> bool:
        """Whether a confirmed plan may be delivered."""
        return rest.confirmed is not None and beats(rest, self.options, 0.0)

    def finalists(self) -> tuple[list[Trial], int]:
        """Who is confirmed, most promising first, and how many verdicts share the error allowed for one."""
        fit = [trial for trial in self.memory.tried.values() if may_win(trial)]
        if self.options.by_speed:
            fit = [trial for trial in fit if trial.speedup is not None and trial.speedup.value > 1.0]
        fit.sort(key=self._promise, reverse=True)
        chosen, verdicts = choose(fit, self.options.finalists, self._most_verdicts(), self._promise, self._chance)
        earlier = len(self.journal.of_kind("confirmed"))  # verdicts of a session that was stopped count too
        return chosen, max(1, verdicts + earlier)

    def _promise(self, trial: Trial) -> float:
        """What the objective makes large, by the race; over all calls where their count was given."""
        if self.options.calls is None:
            return self.options.merit(trial)
        return 1 / expected_total_seconds(trial, self.options.calls, self.memory.baseline_seconds)

    def _chance(self, trial: Trial, verdicts: int) -> float:
        """How likely a trial is certified when so many verdicts share the error."""
        return chance_of(
            trial.quality, self.laboratory.prepared.confirm.samples, self.laboratory.rules.alpha / verdicts
        )

    def _most_verdicts(self) -> int:
        rules, part = self.laboratory.rules, self.laboratory.prepared.confirm
        if rules.metric is None or rules.gate is not Gate.STRICT:
            return self.options.finalists
        score = float(part.scores(part.original_outputs(), rules.metric).mean())
        margin = rules.budget.margin(score)
        return verdicts_affordable(margin, part.samples, rules.alpha, self.options.finalists)

    def _spare(self, trial: Trial, after: Trial | None) -> float:
        """How long comparing a finalist may go on; not at the cost of the next one, if there is time for both."""
        spare = self.schedule.spare(trial)
        kept = self.schedule.confirm_seconds(after) if after is not None else 0.0
        enough = spare - kept > self.schedule.confirm_seconds(trial)
        return spare - kept if enough else spare

    def _confirm(self, trial: Trial, seconds: float) -> Trial:
        trial = confirm(
            self.laboratory,
            trial,
            self.deliver,
            self.noise_floor,
            self.schedule.rule(),
            self.verdicts,
            seconds,
        )
        self.journal.append({"kind": "confirmed", "plan": str(trial.plan), "outcome": trial.outcome.value})
        self.memory.tried[trial.plan] = trial
        self.confirmed.append(trial)
        self.schedule.deliverable += [trial] if trial.confirmed is not None else []
        return trial

    def _rung(self, confirmed: list[Trial]) -> Rung | None:
        """The best plain rung, confirmed as a finalist or measured like one, when there is time for it."""
        rungs = [t for t in self.memory.tried.values() if is_rung(t.plan) and may_win(t)]
        best = max(rungs, key=lambda trial: trial.speedup.value if trial.speedup else 0.0, default=None)
        if best is None:
            return None
        for trial in confirmed:
            if trial.plan == best.plan and trial.confirmed is not None:
                return Rung(trial.plan, trial.confirmed)
        if not self.schedule.time_for_the_rung(best):
            return None
        self.listener.stage("confirm", f"the best plain rung: {best.plan}")
        try:
            self.laboratory.build(best.plan)
            return Rung(best.plan, self._timed(best.plan, self.laboratory.spec(best.plan)))
        except WorkerFailure as failure:
            self.listener.note(f"the best plain rung could not be confirmed: {failure}")
            return None

    def _timed(self, plan: Plan, spec: ArmSpec, restarts: int | None = None) -> Comparison:
        rule, spare = self.schedule.rule(), self.schedule.spare(None)
        return timed(self.laboratory, plan, spec, self.noise_floor, rule, spare, restarts)

    def _result(self, confirmed: Sequence[Trial], winner: Trial | None, rung: Rung | None) -> Result:
        prepared, trials = self.laboratory.prepared, tuple(self.memory.tried.values())
        if winner is not None and winner.confirmed is not None and winner.quality is not None:
            status, plan, comparison, quality = Status.FASTER, winner.plan, winner.confirmed, winner.quality
        else:
            status, plan, comparison = self._kept(trials), Plan(), self._measure_original()
            quality = Quality(QualityVerdict.HELD, "the original itself", prepared.confirm.samples, 0.0)
        slower = sum(trial.outcome is Outcome.NOT_FASTER for trial in trials)
        notes = [
            *self._not_worth_loading(confirmed if winner is None else []),
            *prepared.notes,
            comparison.note,
            f"plans that were slower than the original: {slower}" if slower else "",
        ]
        kept = tuple(note for note in notes if note)
        return Result(prepared.work.name, status, plan, comparison, quality, rung, trials, self.noise_floor, {}, kept)

    def _not_worth_loading(self, confirmed: Sequence[Trial]) -> Iterator[str]:
        """A sentence on each finalist that is faster a call and does not make up for its loading."""
        calls = self.options.calls
        if calls is None:
            return
        for trial in confirmed:
            if trial.confirmed is not None and trial.confirmed.verdict is SpeedVerdict.FASTER:
                after, before = total_seconds(trial, calls), original_total_seconds(trial, calls)
                count = f"{calls} call{'s' if calls > 1 else ''}"
                yield (
                    f"{trial.plan} is faster a call, but loading it and {count} take {after:.3g} s and the original's "
                    f"{before:.3g} s"
                )

    def _kept(self, trials: tuple[Trial, ...]) -> Status:
        """Why the original is kept: nothing was faster, or something was whose quality could not be certified."""
        unsure = any(trial.outcome is Outcome.QUALITY_UNKNOWN for trial in trials)
        return Status.QUALITY_UNCERTIFIED if unsure else Status.NOTHING_FASTER

    def _measure_original(self) -> Comparison:
        """The original as an artifact against itself as it was given: nothing is claimed of it, so that one pair of
        processes does when time is short."""
        self.listener.stage("confirm", "nothing won: the original is kept, and measured as an artifact")
        restarts = None if self.schedule.time_to_confirm(None) else 1
        return unclaimed(self._timed(Plan(), self.deliver(Plan(), self.laboratory.prepared.program), restarts))


def unclaimed(comparison: Comparison) -> Comparison:
    """The comparison of the original as an artifact with itself as it was given, which claims no gain: capturing the
    graph is no plan. Where it is slower, the note says so: whoever keeps the model as given loses nothing."""
    if comparison.verdict is SpeedVerdict.SLOWER:
        told = f"the original's captured graph runs at {comparison.speedup} times the speed of the model as given"
        return _noted(comparison, f"{told}, which is the faster one to keep")
    if comparison.verdict is not SpeedVerdict.FASTER:
        return comparison
    told = (
        "the original's captured graph was faster than the model as given; it is no plan, and nothing is claimed of it"
    )
    return dataclasses.replace(_noted(comparison, told), verdict=SpeedVerdict.UNDECIDED)


def _noted(comparison: Comparison, told: str) -> Comparison:
    return dataclasses.replace(comparison, note="; ".join(filter(None, (comparison.note, told))))
