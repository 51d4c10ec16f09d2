"""What the session that began a run proved and measured, kept for the sessions that go on with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vivace.core import registry
from vivace.core.errors import UsageError
from vivace.core.plan import Plan, read_plan
from vivace.core.technique import Effect
from vivace.core.training.parity import Parity
from vivace.core.training.run import StepTrial, TrainingRun
from vivace.devices.disk import write_whole
from vivace.report.duration import show_duration
from vivace.report.reading import read_training
from vivace.report.results import TechniqueDocument
from vivace.report.training import ParityDocument, StepTrialDocument, TrainingDocument, training_document

CHOSEN = "chosen.json"
"""The file of a run's folder that holds it, in the form of run.json."""


def write_chosen(folder: Path, run: TrainingRun) -> None:
    """Keep what is known of a run's plan: a whole file or none."""
    write_whole(folder / CHOSEN, training_document(run).to_text())


def with_earlier(run: TrainingRun, folder: Path) -> TrainingRun:
    """A run that goes on, with the trials, the proof and the comparison of the session that began it, and `earlier`
    saying so. Proof and comparison are of one plan, so a run that goes on with another has the trials alone."""
    file = folder / CHOSEN
    if not file.is_file():
        return run
    try:
        found = read_training(file.read_bytes(), str(file))
    except (UsageError, OSError) as error:
        return dataclasses.replace(run, earlier=f"what the session before proved and measured cannot be read: {error}")
    first = dataclasses.replace(
        run, trials=_trials(found.trials), proofs=tuple(found.proofs), dropped=tuple(found.dropped),
        scaling=run.scaling or found.scaling, earlier=found.earlier or _told(found, run.conditions),
    )  # fmt: skip
    if found.plan_name != str(run.plan):
        return dataclasses.replace(first, earlier=f"{first.earlier}; it had another plan, {found.plan_name}")
    parity = None if found.parity is None else _parity(found.parity, run.plan)
    return dataclasses.replace(
        first, parity=run.parity or parity, comparison=found.comparison, noise_ratios=tuple(found.noise_ratios),
        break_even_steps=found.break_even_steps, diagnosis_after=run.diagnosis_after or found.diagnosis_after,
    )  # fmt: skip


def _told(found: TrainingDocument, now: Mapping[str, Any]) -> str:
    then, here = (_processor(one) for one in (found.conditions, now))
    where = "on this kind of machine" if then == here else f"on another machine, {then}"
    took = show_duration(found.search_seconds)
    return f"trials, proof and speed-up are of the session that began this run, {where}, which took {took} to choose"


def _processor(conditions: Mapping[str, Any]) -> str:
    machine = conditions.get("machine")
    return str(machine.get("processor", "")) if isinstance(machine, Mapping) else ""


def _trials(documents: Sequence[StepTrialDocument]) -> tuple[StepTrial, ...]:
    """The trials whose techniques are known here."""
    plans = {str(Plan()): Plan(), "": Plan()} | {one.plan_name: _plan(one.plan) for one in documents}
    found = []
    for one in documents:
        plan, over = plans[one.plan_name], plans.get(one.over_name)
        if plan is not None:
            found.append(
                StepTrial(
                    plan, one.outcome, one.speedup, one.prepare_seconds, one.accepted, one.reason, tuple(one.notes),
                    over or Plan(), one.pays_after, one.seconds, one.over_seconds,
                )
            )  # fmt: skip
    return tuple(found)


def _plan(documents: Sequence[TechniqueDocument]) -> Plan | None:
    try:
        return read_plan([one.model_dump() for one in documents], registry.techniques())
    except (KeyError, TypeError, UsageError):
        return None


def _parity(found: ParityDocument, plan: Plan) -> Parity:
    effect: Effect = plan.training_effect
    return Parity(
        str(plan), effect.value, found.reference, found.verdict, found.reason, tuple(found.agreements), found.curve,
        found.scores, tuple(found.notes), untold=found.tensors - len(found.agreements),
    )  # fmt: skip
