"""Confirmation: finalists and the original measured again from scratch, from what will be delivered, on unseen data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from vivace.core.errors import UsageError, WorkerFailure
from vivace.core.measurement import Comparison, Outcome, SpeedVerdict
from vivace.core.plan import Plan
from vivace.core.quality import Quality, QualityVerdict
from vivace.core.result import Trial, TrialStage
from vivace.core.technique import Effect
from vivace.core.workload import Objective
from vivace.data.samples import read_outputs
from vivace.measure.live import ArmSpec, LiveArm
from vivace.measure.paired import StopRule, compare
from vivace.search.account.payback import total_speedup
from vivace.search.caches import as_delivered
from vivace.search.identity import key_of
from vivace.search.judge import Rules, judge_decisions, refuse
from vivace.search.laboratory import Laboratory
from vivace.search.options import SAME_SPEED, Options

LEAST_GAIN = 0.01
Deliver = Callable[[Plan, Path], ArmSpec]
"""Puts a plan's program into the form in which it will be delivered, and says how a worker opens that."""


def confirm(
    laboratory: Laboratory,
    trial: Trial,
    deliver: Deliver,
    noise_floor: float,
    rule: StopRule,
    verdicts: int,
    seconds: float,
) -> Trial:
    """Judge one finalist on the confirm part and time it in fresh pairs of processes, more than three within `seconds`.

    `verdicts` is how many finalists may be judged on the confirm part in all: each verdict's error is divided by it
    (Bonferroni), for the data is used that often. Returns the trial with its outcome.
    """
    trial = trial.replace(stage=TrialStage.FINALIST)
    try:
        spec = deliver(trial.plan, laboratory.build(trial.plan))
        quality = _judge(laboratory, trial, spec, verdicts)
        trial = trial.replace(quality=quality)
        outcome = refused(quality)
        if outcome is not None:
            return trial.replace(outcome=outcome, reason=quality.reason or f"quality {quality.verdict.value}")
        return trial.replace(confirmed=timed(laboratory, trial.plan, spec, noise_floor, rule, seconds))
    except WorkerFailure as failure:
        return trial.replace(outcome=failure.outcome, reason=failure.reason)
    except UsageError as error:  # the metric, which could score the original, cannot score these answers
        return trial.replace(outcome=Outcome.WRONG_OUTPUT, reason=str(error))


def timed(
    laboratory: Laboratory,
    plan: Plan,
    spec: ArmSpec,
    noise_floor: float,
    rule: StopRule,
    seconds: float,
    restarts: int | None = None,
) -> Comparison:
    """The original against a program, in fresh pairs of processes, on inputs that the race did not use.

    `restarts` are as many as the options say where none are given. More are added within `seconds` where the first ones
    disagree.
    """
    options = laboratory.options
    return compare(
        laboratory.prepared.original,
        spec,
        laboratory.prepared.confirm_calls,
        laboratory.folder / "confirm" / key_of(plan),
        rule=rule,
        restarts=options.restarts if restarts is None else restarts,
        seconds_for_more=seconds,
        noise_floor=noise_floor,
        limits=options.limits,
        environment_variables=as_delivered(laboratory.variables),
        later_variables=laboratory.variables,
        seed=options.seed,
    )


def paired(laboratory: Laboratory, rest: Plan, winner: Plan, rule: StopRule, seconds: float) -> Comparison:
    """A plan without a technique against the plan with it, both as they were built, in fresh pairs of processes on the
    inputs of the confirmation; more of them within `seconds` where the interval is wide. Raises WorkerFailure."""
    laboratory.build(rest)
    laboratory.build(winner)
    return compare(
        laboratory.spec(rest),
        laboratory.spec(winner),
        laboratory.prepared.confirm_calls,
        laboratory.folder / "simpler" / key_of(rest),
        rule=rule,
        restarts=laboratory.options.restarts,
        seconds_for_more=seconds,
        limits=laboratory.options.limits,
        environment_variables=laboratory.variables,
        seed=laboratory.options.seed,
    )


def refused(quality: Quality) -> Outcome | None:
    """The outcome of a finalist whose quality was not certified; None when it was."""
    return {
        QualityVerdict.HELD: None,
        QualityVerdict.NOT_HELD: Outcome.QUALITY_FAILED,
        QualityVerdict.CANNOT_TELL: Outcome.QUALITY_UNKNOWN,
    }[quality.verdict]


def best_of(confirmed: list[Trial], options: Options, original: float = 0.0) -> Trial | None:
    """The winner: the best confirmed finalist; among those within 2% of it the one that changes least.

    For a time the finalist must be FASTER than the original, and where a count of calls was given its total time must
    be less by LEAST_GAIN; for memory and size it must not be SLOWER, and its merit must exceed the original's
    (`original`) by LEAST_GAIN.
    """
    fit = [trial for trial in confirmed if trial.confirmed is not None and beats(trial, options, original)]
    if not fit:
        return None
    best = max(_merit(trial, options) for trial in fit)
    near = [trial for trial in fit if _merit(trial, options) >= best * (1 - SAME_SPEED)]
    order = [Effect.EXACT, Effect.ROUNDED, Effect.CHANGED]
    return min(near, key=lambda trial: (order.index(trial.plan.effect), len(trial.plan), -_merit(trial, options)))


def beats(trial: Trial, options: Options, original: float) -> bool:
    """Whether a confirmed trial may be delivered, by what the objective makes large; `original` is the original's."""
    verdict = trial.confirmed.verdict if trial.confirmed else SpeedVerdict.UNDECIDED
    if options.by_speed:
        pays = options.calls is None or total_speedup(trial, options.calls) > 1 + LEAST_GAIN
        return verdict is SpeedVerdict.FASTER and pays
    if options.objective is Objective.MEMORY and trial.confirmed is not None:
        before, after = (times.peak_memory_bytes for times in (trial.confirmed.baseline, trial.confirmed.candidate))
        return verdict is not SpeedVerdict.SLOWER and after < before * (1 - LEAST_GAIN)
    return verdict is not SpeedVerdict.SLOWER and options.merit(trial) > original * (1 + LEAST_GAIN)


def _merit(trial: Trial, options: Options) -> float:
    if options.by_speed and trial.confirmed is not None:
        return trial.confirmed.speedup.value if options.calls is None else total_speedup(trial, options.calls)
    if options.objective is Objective.MEMORY and trial.confirmed is not None:
        return 1.0 / max(trial.confirmed.candidate.peak_memory_bytes, 1)
    return options.merit(trial)


def _judge(laboratory: Laboratory, trial: Trial, spec: ArmSpec, verdicts: int) -> Quality:
    prepared, folder = laboratory.prepared, laboratory.folder / "confirm" / key_of(trial.plan) / "judge"
    rules: Rules = dataclasses.replace(laboratory.rules, alpha=laboratory.rules.alpha / verdicts)
    limits, variables = laboratory.options.limits, laboratory.variables
    # it answers and is not timed: a process of its own, but no interpreter of its own
    with LiveArm(spec, prepared.confirm_calls, folder, limits, variables, fresh=False) as arm:
        arm.start(warm_seconds=0.0)
        for name, calls in (("referee", prepared.referee.calls), ("confirm", prepared.confirm.calls)):
            to = folder / f"{name}.safetensors"
            if not laboratory.answers(arm, calls, to):
                raise WorkerFailure(Outcome.NONFINITE, "the answers hold NaN or infinite values")
        wrong = refuse(prepared.referee, read_outputs(folder / "referee.safetensors"), trial.plan.effect)
        if wrong:
            raise WorkerFailure(Outcome.WRONG_OUTPUT, wrong)
        return judge_decisions(prepared.confirm, read_outputs(folder / "confirm.safetensors"), trial.plan.effect, rules)
