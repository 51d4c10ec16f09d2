"""What `measure` compares: models, files, artifacts and plans, each as an arm, and the calls that both answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vivace.api.target import resolve
from vivace.artifact.load import check_files
from vivace.artifact.manifest import GOLDEN_CALLS, read_manifest
from vivace.core.errors import ArtifactError, UsageError
from vivace.core.plan import Plan
from vivace.core.workload import MODEL_FILES, Workload
from vivace.data import samples
from vivace.measure.live import ArmSpec
from vivace.measure.process import Limits, Phase, Worker
from vivace.runtimes.calls import flat_call
from vivace.runtimes.source import device_of
from vivace.search.caches import compiler_variables
from vivace.search.calls.inputs import TIMING_CALLS, perturbed
from vivace.search.calls.mix import check_alike, mixed
from vivace.search.identity import key_of
from vivace.search.laboratory import BUILDER_ENTRY, STORE_ENTRY
from vivace.search.prepare import Prepared, prepare

Side = Workload | nn.Module | Plan | str | Path
ORIGINAL_ENTRY = "vivace.runtimes.source:open_original"


@dataclasses.dataclass(frozen=True)
class Opened:
    """How a worker opens one side, and what is known of its calls: examples with their weights, one for each shape; a
    file that implies one; stored ones."""

    arm: ArmSpec
    module: nn.Module | None = None
    examples: Sequence[Any] = ()
    weights: Sequence[float] = (1.0,)
    file: Path | None = None
    stored: Path | None = None


class Sides:
    """Opens sides in a folder. `work` is needed for plans: it is captured once, and each plan is built from it."""

    def __init__(self, folder: Path, work: Workload | None, trust: bool, limits: Limits) -> None:
        self.folder = folder
        self._work = work
        self._trust = trust
        self._limits = limits
        self._prepared: Prepared | None = None

    def open(self, given: Side, label: str) -> Opened:
        """One side. Raises UsageError for what is no side, ArtifactError for an artifact that may not be loaded."""
        if isinstance(given, str):
            given = resolve(given)
        if isinstance(given, Path) and given.suffix in MODEL_FILES:
            given = Workload(given)
        if isinstance(given, Path):
            return self._artifact(given, label)
        if isinstance(given, Plan):
            return self._plan(given, label)
        if isinstance(given, nn.Module):
            return Opened(ArmSpec(ORIGINAL_ENTRY, {"file": None}, given, label, device_of(given)), given)
        if isinstance(given, Workload):
            return _workload(given, label)
        raise UsageError(
            f"{label} is a {type(given).__name__}; allowed are a Workload, a torch.nn.Module, a Plan (with work=...), "
            "and the path of a model file or an artifact"
        )

    def calls(self, one: Opened, other: Opened, inputs: Any) -> Path:
        """Stored calls for both sides: from `inputs`, else from the first side that knows how it is called."""
        model = one.module or other.module or _takes_anything
        if inputs is not None:
            return self._made(model, [inputs], (1.0,))
        for side in (one, other):
            if side.examples:
                return self._made(model, side.examples, side.weights)
        for side in (one, other):
            known = side.stored or (self._implied(side.file) if side.file else None)
            if known is not None:
                stored = samples.read(known)
                calls, mix = mixed(*_pools(stored))
                return samples.write(self.folder / "calls", calls, stored.call, stored.positional, mix)
        raise UsageError("neither side says how it is called; give inputs=(x,), a Workload, or an artifact")

    def _made(self, model: Any, examples: Sequence[Any], weights: Sequence[float]) -> Path:
        flat = [flat_call(model, inputs) for inputs in examples]
        check_alike(flat)
        near = [[leaf.cpu() for leaf in leaves] for leaves, _, _ in flat]
        calls, mix = mixed([perturbed(leaves, TIMING_CALLS) for leaves in near], weights)
        return samples.write(self.folder / "calls", calls, *flat[0][1:], mix)

    def _artifact(self, folder: Path, label: str) -> Opened:
        manifest = read_manifest(folder)
        check_files(folder, manifest)
        if manifest.executes_native_code and not self._trust:
            raise ArtifactError(
                f"{folder} contains native code, which runs with your rights; give trust=True (--trust) if you built "
                "it or trust whoever did"
            )
        arguments = {"folder": str(folder.absolute()), "trust": self._trust}
        return Opened(
            ArmSpec("vivace.artifact.load:open_artifact", arguments, None, label), stored=folder / GOLDEN_CALLS
        )

    def _plan(self, plan: Plan, label: str) -> Opened:
        if self._work is None:
            raise UsageError(f"{label} is a plan, {plan}; give work=Workload(...) to say which model it is applied to")
        self._prepared = self._prepared or prepare(self._work, self.folder / "work", limits=self._limits)
        program = self._prepared.program
        if len(plan):
            program = self.folder / "programs" / key_of(plan)
            variables = compiler_variables(self.folder)
            arguments = {"work": self._prepared.work.to_json(), "original": str(self._prepared.program)}
            with Worker(self.folder / "builder", self._limits, variables, fresh=False) as builder:
                builder.open(BUILDER_ENTRY, arguments)
                builder.call("build", {"plan": plan.to_json(), "to": str(program)}, Phase.CONVERT)
        arm = ArmSpec(STORE_ENTRY, {"folder": str(program), "trust": True}, None, str(plan), self._prepared.device)
        return Opened(arm, stored=self._prepared.confirm_calls)

    def _implied(self, file: Path) -> Path:
        """The example call that a bare model file implies."""
        to = self.folder / "implied"
        with Worker(self.folder / "inspect", self._limits, fresh=False) as worker:
            worker.open("vivace.search.inspection:open_inspection", {"file": str(file.absolute())})
            worker.call("example", {"to": str(to)}, Phase.FIRST_CALL)
        return to


def _workload(work: Workload, label: str) -> Opened:
    if work.file is not None:
        arm = ArmSpec(ORIGINAL_ENTRY, {"file": str(work.file.absolute())}, None, label)
        return Opened(arm, None, work.examples, work.weights, work.file)
    module: Any = work.model
    arm = ArmSpec(ORIGINAL_ENTRY, {"file": None}, module, label, device_of(module))
    return Opened(arm, module, work.examples, work.weights)


def _takes_anything(*args: Any, **kwargs: Any) -> None:
    """Stands in for a model whose parameters' names are not known: arguments then go by position."""


def _pools(stored: samples.StoredCalls) -> tuple[list[list[Sequence[Tensor]]], Sequence[float]]:
    """Enough calls of each shape, and the weights of the shapes."""
    if stored.mix is None:
        return [_enough(list(stored))], (1.0,)
    shapes = range(len(stored.mix.weights))
    own = [[stored[i] for i, shape in enumerate(stored.mix.shapes) if shape == number] for number in shapes]
    if not all(own):
        raise ArtifactError(f"{stored.path} holds no call of one of the shapes of its mix; make the artifact again")
    return [_enough(calls) for calls in own], stored.mix.weights


def _enough(calls: Sequence[Sequence[Tensor]]) -> list[Sequence[Tensor]]:
    """The calls, and further ones made from the first, so that a cache of answers earns nothing."""
    return [*calls, *perturbed(calls[0], TIMING_CALLS - len(calls) + 1)[1:]]
