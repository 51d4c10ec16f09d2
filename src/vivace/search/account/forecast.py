"""The rehearsal of a search: its strategy against trials that go as predicted, on a clock that is moved by hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from vivace.core.forecast import Expected, Forecast
from vivace.core.measurement import Interval, Outcome
from vivace.core.plan import Plan
from vivace.core.result import Trial, TrialStage
from vivace.core.technique import Effect, Stage
from vivace.core.workload import Objective
from vivace.measure.clock import FakeClock
from vivace.search.account.waterfall import configurations
from vivace.search.identity import size_of
from vivace.search.laboratory import RACE
from vivace.search.options import Options
from vivace.search.order.memory import Memory
from vivace.search.prepare import Prepared
from vivace.search.rank import Ranking
from vivace.search.schedule import FIRST_GUESS_SECONDS, JUDGING_SECONDS, RACE_SECONDS, Schedule
from vivace.search.space import Space
from vivace.search.strategy import default_strategy, single_strategy

UNPREDICTED: Mapping[Objective, str] = {
    Objective.MEMORY: "peak memory is not predicted, for it also holds activations and what the engine takes for "
    "itself; `weights` is what a call is PREDICTED to read of them. Plans are tried by their PREDICTED speed, and the "
    "least peak memory that is MEASURED wins",
    Objective.SIZE: "the size on the disk is not predicted, for each engine stores programs in its own way; `weights` "
    "is what a call is PREDICTED to read of them, which is most of a large model's program. Plans are tried by their "
    "PREDICTED speed, and the smallest program that is MEASURED wins",
}
"""What is told of objectives that a cost does not hold."""


def forecast_of(
    prepared: Prepared, space: Space, options: Options, ranking: Ranking, threads: int, spent_seconds: float
) -> Forecast:
    """What a search is likely to try and to take, when preparing it took `spent_seconds`.

    `threads` is how many the original runs with.
    """
    clock = FakeClock()
    original_seconds = ranking.predicted_seconds(Plan())
    blocks = 4 * RACE.min_blocks * max(RACE.block_seconds, original_seconds)
    schedule = Schedule(
        options.seconds,
        clock.now(),
        options.restarts,
        clock,
        opening_seconds=min(FIRST_GUESS_SECONDS, spent_seconds),  # preparing opened the original too, and did more
        race_seconds=min(RACE_SECONDS, JUDGING_SECONDS + blocks),
    )
    clock.advance(spent_seconds + opening(schedule))
    memory = Memory(ranking, original_seconds, options.merit, threads)
    alone = options.plan is not None
    plans = tuple(rehearse(space, memory, schedule, clock, options.plan))
    clock.advance(closing(memory, options, schedule))
    return Forecast(
        prepared.work.name,
        plans,
        {} if alone else space.left_out,
        (*prepared.notes, *([] if alone else _menders(space)), *_unpredicted(options.objective)),
        options.seconds,
        min(clock.now(), options.seconds),
        stored_programs([expected.plan for expected in plans]) * size_of(prepared.program),
        () if alone else tuple(mended(space, [expected.plan for expected in plans], memory, schedule)),
        options.objective,
    )


def rehearse(
    space: Space, memory: Memory, schedule: Schedule, clock: FakeClock, plan: Plan | None = None
) -> Iterator[Expected]:
    """The plans that a search asks for when each is as fast as predicted, until there is time for no other; `plan` is
    the only one where it was asked for."""
    memory.has_time_for = lambda plan: schedule.time_for_a_trial(plan, *memory.ends)
    memory.has_time_for_first = schedule.time_for_first_trials
    strategy = default_strategy(space, memory) if plan is None else single_strategy(plan, memory)
    request = next(strategy, None)
    while request is not None:
        asked, stage = request
        expected = _expected(asked, memory, schedule)
        clock.advance(expected.seconds)
        yield expected
        try:
            request = strategy.send(_as_predicted(expected, stage))
        except StopIteration:
            return


def mended(space: Space, plans: Iterable[Plan], memory: Memory, schedule: Schedule) -> Iterator[Expected]:
    """What is tried in the place of these plans where their answers are refused: the same with quality won back."""
    found = dict.fromkeys(better for plan in plans if plan.effect is Effect.CHANGED for better in space.recovered(plan))
    for plan in found:
        yield _expected(plan, memory, schedule)


def _expected(plan: Plan, memory: Memory, schedule: Schedule) -> Expected:
    ranking = memory.ranking
    gain = memory.baseline_seconds / ranking.predicted_seconds(plan)
    return Expected(plan, gain, schedule.expected_seconds(plan), round(plan.cost(ranking.cost).weight_bytes))


def _unpredicted(objective: Objective) -> Iterator[str]:
    """What of the objective nobody predicts."""
    if objective in UNPREDICTED:
        yield UNPREDICTED[objective]


def _menders(space: Space) -> Iterator[str]:
    """What is tried only where answers were refused, which nobody predicts."""
    names = [name for name, settings in space.settings.items() if any(setting.mends for setting in settings)]
    if names:
        yield f"where a plan loses too much quality, it is also tried with {' or '.join(names)}"


def opening(schedule: Schedule) -> float:
    """Seconds before the first trial: the original, its captured graph, and the original against itself."""
    return 3 * schedule.opening_seconds + schedule.race_seconds


def closing(memory: Memory, options: Options, schedule: Schedule) -> float:
    """Seconds after the last trial: finalists confirmed, then the winner's configurations while there is time."""
    leader = memory.leader
    if leader is None:
        return schedule.confirm_seconds(None)
    fit = sum(trial.outcome is Outcome.OK for trial in memory.tried.values())
    confirming = min(fit, options.finalists) * schedule.confirm_seconds(leader)
    parts = configurations(leader.plan)
    return confirming + sum(schedule.configuration_seconds(plan, leader, plan in memory.tried) for plan in parts)


def stored_programs(plans: Sequence[Plan]) -> int:
    """How many programs a search of these plans stores: one a plan, and the beginnings that plans may share."""
    beginnings = {
        plan.techniques[:count]
        for plan in plans
        for count in range(1, len(plan))
        if plan.techniques[count - 1].stage.value <= Stage.PRECISION.value
    }
    return len(set(plans)) + len(beginnings)


def _as_predicted(expected: Expected, stage: TrialStage) -> Trial:
    gain = expected.speedup
    outcome = Outcome.OK if gain >= 1 else Outcome.NOT_FASTER
    trial = Trial(expected.plan, outcome, stage, speedup=Interval(gain, gain, gain))
    return trial.replace(size_bytes=expected.weight_bytes, peak_memory_bytes=expected.weight_bytes)  # as far as known
