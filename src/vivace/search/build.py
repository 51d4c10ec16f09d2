"""A worker's service that builds: the stored original in, the plan's techniques applied, a program folder out."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vivace.core import registry
from vivace.core.errors import NotApplicable
from vivace.core.plan import read_plan
from vivace.core.program import Form, Model
from vivace.core.technique import Stage, Technique
from vivace.core.work import Work
from vivace.runtimes import store


class Builder:
    """Builds plans one after the other, each from the stored original, sharing what plans have in common.

    After each rewrite, sparsity or precision technique the intermediate program is kept under the run's folder, so
    that a second plan with the same beginning (the same quantization with other threads, say) starts from there.
    """

    def __init__(self, work: Work, original: Path, known: Mapping[str, type[Technique]]) -> None:
        self.work = work
        self.original = original
        self.known = known

    def build(self, plan: list[dict[str, Any]], to: str) -> dict[str, Any]:
        """Build one plan and store its program. Raises NotApplicable with the technique's reason."""
        techniques = read_plan(plan, self.known).techniques
        done, model = self._longest_prefix(techniques)
        for count, technique in enumerate(techniques[done:], start=done + 1):
            model = self._apply(technique, model)
            if technique.stage.value <= Stage.PRECISION.value and count < len(techniques):
                self._keep(techniques[:count], model)
        store.save(model, Path(to))
        return {"native": model.form is Form.AOT_INDUCTOR, "form": model.form.value}

    def _apply(self, technique: Technique, model: Model) -> Model:
        try:
            return technique.apply(model, self.work)
        except NotApplicable as error:
            raise NotApplicable(f"{technique.name()}: {error.reason}") from error

    def _longest_prefix(self, techniques: tuple[Technique, ...]) -> tuple[int, Model]:
        for count in range(len(techniques), 0, -1):
            folder = self._prefix_folder(techniques[:count])
            if folder.is_dir():
                return count, store.read_model(folder)
        return 0, store.read_model(self.original)

    def _keep(self, techniques: tuple[Technique, ...], model: Model) -> None:
        folder = self._prefix_folder(techniques)
        if not folder.exists():
            store.save(model, folder)

    def _prefix_folder(self, techniques: tuple[Technique, ...]) -> Path:
        key = hashlib.sha256(repr([str(t) for t in techniques]).encode()).hexdigest()[:16]
        return self.work.folder / "prefixes" / key


def open_builder(arguments: Mapping[str, Any], payload: object) -> Builder:
    """The worker's entry. `arguments`: work, original (program folder), and `extra`, a list of `module:name` of
    technique tuples beyond the installed ones (for tests)."""
    known = dict(registry.techniques())
    for reference in arguments.get("extra", ()):
        module, _, name = reference.partition(":")
        known |= {kind.name(): kind for kind in getattr(importlib.import_module(module), name)}
    return Builder(Work.from_json(arguments["work"]), Path(arguments["original"]), known)
