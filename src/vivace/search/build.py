"""A worker's service that builds: the stored original in, the plan's techniques applied, a program folder out."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vivace.core import registry
from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable, UsageError
from vivace.core.plan import read_plan
from vivace.core.program import Form, Model
from vivace.core.technique import Stage, Technique
from vivace.core.work import Work
from vivace.measure.clock import SystemClock
from vivace.runtimes import inductor, store
from vivace.runtimes.graphs import counts
from vivace.techniques import fine_tuning, sensitivity

_UNIT = Cost(flops=1.0, weight_bytes=1.0, activation_bytes=1.0, operators=1)


class Builder:
    """Builds plans one after the other, each from the stored original, sharing what plans have in common.

    After each rewrite, sparsity or precision technique the intermediate program is kept under the run's folder, so
    that a second plan with the same beginning (the same quantization with other threads, say) starts from there.
    """

    def __init__(self, work: Work, original: Path, known: Mapping[str, type[Technique]]) -> None:
        self.work = work
        self.original = original
        self.known = known
        self._clock = SystemClock()
        self._seconds: dict[Path, float] = {}
        self._captured: Model | None = None

    def check_loss(self) -> None:
        """Raise UsageError when the user's loss cannot score the original's answers to a calibration call."""
        try:
            fine_tuning.check_loss(self.work)
        except NotApplicable as error:
            raise UsageError(error.reason) from error

    def build(self, plan: list[dict[str, Any]], to: str, seconds: float | None = None) -> dict[str, Any]:
        """Build one plan in about `seconds` at most and store its program. Raises NotApplicable with the technique's
        reason. `shared_seconds` of the answer is what the beginning took that was there from an earlier plan."""
        started = self._clock.now()
        work = dataclasses.replace(self.work, build_seconds=seconds)
        techniques = read_plan(plan, self.known).techniques
        done, model = self._longest_prefix(techniques)
        shared = self._seconds.get(self._prefix_folder(techniques[:done]), 0.0)
        for count, technique in enumerate(techniques[done:], start=done + 1):
            model = self._counted(technique, _apply(technique, model, work))
            if technique.stage.value <= Stage.PRECISION.value and count < len(techniques):
                self._keep(techniques[:count], model, shared + self._clock.now() - started)
        store.save(model, Path(to))
        return {"native": model.form is Form.AOT_INDUCTOR, "form": model.form.value, "shared_seconds": shared}

    def rank_layers(self) -> None:
        """Find how much each layer of the original suffers from int8, unless it is known. Raises NotApplicable."""
        sensitivity.ranked(store.read_model(self.original), self.work)

    def _counted(self, technique: Technique, model: Model) -> Model:
        """A program with the operations that a technique left of it, counted: pruning promises more than it keeps where
        the first and last layers, or attention, stay."""
        if not changes_flops(technique):
            return model
        if self._captured is None:
            self._captured = store.read_model(self.original)
        return model.replace(flops_share=flops_share(model, self._captured))

    def _longest_prefix(self, techniques: tuple[Technique, ...]) -> tuple[int, Model]:
        for count in range(len(techniques), 0, -1):
            folder = self._prefix_folder(techniques[:count])
            if folder.is_dir():
                return count, store.read_model(folder)
        return 0, store.read_model(self.original)

    def _keep(self, techniques: tuple[Technique, ...], model: Model, seconds: float) -> None:
        folder = self._prefix_folder(techniques)
        if not folder.exists():
            store.save(model, folder)
            self._seconds[folder] = seconds

    def _prefix_folder(self, techniques: tuple[Technique, ...]) -> Path:
        key = hashlib.sha256(repr([str(t) for t in techniques]).encode()).hexdigest()[:16]
        return self.work.folder / "prefixes" / key


def flops_share(model: Model, captured: Model) -> float | None:
    """The operations of products that a graph takes for the captured graph's example, over those that that one takes.
    None for what is no graph of PyTorch's, holds operators of our own, whose products nobody counts, or does not run.
    """
    is_counted = all(one.form is Form.TORCH for one in (model, captured))
    if not is_counted or any(name.startswith("vivace.") for name in counts.operators_of(model)):
        return None
    leaves = [leaf.to(captured.settings.device) for leaf in inductor.example_of(captured)]
    try:
        whole = counts.cost_of(captured, leaves).flops
        return counts.cost_of(model, leaves).flops / whole if whole else None
    except (RuntimeError, ValueError, TypeError, NotImplementedError):  # an operator that does not run under a counter
        return None


def changes_flops(technique: Technique) -> bool:
    """Whether layers do another amount of work after it. What calls grow by that are padded is no layer's."""
    return technique.stage is Stage.SPARSITY and technique.rewrite(_UNIT).flops != _UNIT.flops


def _apply(technique: Technique, model: Model, work: Work) -> Model:
    try:
        return technique.apply(model, work)
    except NotApplicable as error:
        raise NotApplicable(f"{technique.name()}: {error.reason}") from error


def open_builder(arguments: Mapping[str, Any], payload: Any) -> Builder:
    """The worker's entry. `arguments`: work, original (program folder), and `extra`, a list of `module:name` of
    technique tuples beyond the installed ones (for tests). `payload`: the Lesson, or None."""
    known = dict(registry.techniques())
    for reference in arguments.get("extra", ()):
        module, _, name = reference.partition(":")
        known |= {kind.name(): kind for kind in getattr(importlib.import_module(module), name)}
    work = dataclasses.replace(Work.from_json(arguments["work"]), lesson=payload)
    return Builder(work, Path(arguments["original"]), known)
