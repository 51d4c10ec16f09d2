"""Trials of a training as the figures tell them: what each added to the best plan before it, and how it ended."""

from __future__ import annotations

import dataclasses

from vivace.core.measurement import Outcome
from vivace.report.html.words import outcome_word
from vivace.report.results import TechniqueDocument
from vivace.report.training import StepTrialDocument, TrainingDocument


@dataclasses.dataclass(frozen=True)
class Tried:
    """A trial with its number, and what it added to the best plan before it."""

    number: int
    name: str
    trial: StepTrialDocument

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        if self.trial.accepted:
            return "kept"
        return "not clearly faster" if self.trial.outcome is Outcome.OK else outcome_word(self.trial.outcome)

    @property
    def class_(self) -> str:
        """How its mark is drawn."""
        if self.trial.accepted:
            return "gain"
        slower = self.trial.speedup is not None and self.trial.speedup.high < 1
        return "loss" if slower or self.trial.outcome is Outcome.NOT_FASTER else "dominated"


def listed(document: TrainingDocument) -> list[Tried]:
    """Every trial in the order of trying."""
    found: list[Tried] = []
    best: list[TechniqueDocument] = []
    for number, trial in enumerate(document.trials, 1):
        before = set(trial.over_name.split(" + "))
        parts = zip(_names(trial), trial.plan, strict=True)
        added = [name for name, part in parts if (name not in before if trial.over_name else part not in best)]
        found.append(Tried(number, " + ".join(added) or trial.plan_name, trial))
        best = trial.plan if trial.accepted else best
    return found


def no_trials(document: TrainingDocument) -> str:
    """Why nothing was tried."""
    if document.resumed_steps:
        return "a run that goes on keeps the plan that it had"
    return "this plan was asked for" if document.plan else "no technique was tried"


def _names(trial: StepTrialDocument) -> list[str]:
    """The techniques of a plan as its own name calls them, which leaves out settings that are usual."""
    found = trial.plan_name.split(" + ")
    return found if len(found) == len(trial.plan) else [part.technique for part in trial.plan]
