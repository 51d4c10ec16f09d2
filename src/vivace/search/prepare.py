"""Getting ready: read the data once, look at the model in a worker, lay all that a search needs on the disk."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vivace.core.cost import Cost
from vivace.core.errors import UsageError
from vivace.core.facts import Fact
from vivace.core.signature import Signature
from vivace.core.structure import Structure
from vivace.core.work import Work
from vivace.core.workload import Workload
from vivace.data import reading, samples, splits
from vivace.measure.paired import ArmSpec
from vivace.measure.process import Limits, Phase, Worker
from vivace.runtimes.calls import flat_call
from vivace.search.evaluation import Evaluation
from vivace.search.judge import Referee

TIMING_CALLS = 16
"""Distinct inputs that both arms walk; at least 8, so that a cache of results earns nothing."""
REFEREE_SAMPLES = 64
CALIBRATION_SAMPLES = 256
INPUT_NOISE = 0.05
"""Size of the perturbation that makes further inputs from a single example, as a share of its standard deviation."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """All that a search needs. `original` opens the user's own model; `program` is its captured form.

    `race_calls` and `confirm_calls` are for timing; `select` and `confirm` for judging. `notes` are sentences for the
    report; `identity` is equal for the same model, data and shapes.
    """

    work: Work
    original: ArmSpec
    program: Path
    race_calls: Path
    confirm_calls: Path
    select: Evaluation
    confirm: Evaluation
    referee: Referee
    batch_size: int
    notes: tuple[str, ...]
    identity: str


def prepare(
    workload: Workload, folder: Path, *, fixed_shapes: bool = False, native: bool = False, limits: Limits = Limits()
) -> Prepared:
    """Inspect a workload. Raises UsageError or UnsupportedModel with what is wrong with it."""
    file = str(workload.file.absolute()) if workload.file else None
    original = _original_arm(workload, file)
    with Worker(folder / "inspect", limits) as worker:
        worker.open("vivace.search.inspection:open_inspection", {"file": file}, original.payload, Phase.LOAD)
        example, call, positional = _example(workload, worker, folder)
        worker.call("check", {"example": str(folder / "example")}, Phase.FIRST_CALL)
        data = _read(workload, samples.read(folder / "example"))
        varying = data.varying if data is not None else [frozenset[int]() for _ in example]
        facts = worker.call(
            "capture",
            {
                "example": str(folder / "example"),
                "varying": [sorted(axes) for axes in varying],
                "fixed_shapes": fixed_shapes,
                "to": str(folder / "original"),
            },
            Phase.CONVERT,
        )
        layout = _Layout(folder, call, positional, tuple(facts["batch_axes"]), Signature.from_json(facts["signature"]))
        parts = _parts(layout, example, data)
        referee = _referee(worker, layout, parts)
    return _assemble(workload, folder, facts, layout, parts, referee, original, data, fixed_shapes, native)


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Where things go, and how a call looks."""

    folder: Path
    call: Structure
    positional: int
    axes: tuple[int | None, ...]
    signature: Signature

    def write(self, name: str, calls: Sequence[Sequence[Tensor]]) -> Path:
        """Store calls under a name."""
        return samples.write(self.folder / name, calls, self.call, self.positional)

    @property
    def output_axes(self) -> list[int | None]:
        """The batch axis of each output."""
        return [spec.batch_axis for spec in self.signature.outputs]

    def size_of(self, leaves: Sequence[Tensor]) -> int:
        """How many samples a call holds; 1 where there is no batch axis."""
        return next((leaf.shape[axis] for leaf, axis in zip(leaves, self.axes, strict=True) if axis is not None), 1)


@dataclasses.dataclass(frozen=True)
class _Parts:
    """The calls and targets of each part, and how they came about."""

    calibrate: list[Any]
    select: list[Any]
    confirm: list[Any]
    note: str


def _read(workload: Workload, example: samples.StoredCalls) -> reading.Batches | None:
    if workload.data is None:
        return None
    args, kwargs = example.arguments(0)
    return reading.read(workload.data, args or kwargs, needs_target=workload.metric is not None)


def _original_arm(workload: Workload, file: str | None) -> ArmSpec:
    module = None if file else workload.model
    return ArmSpec("vivace.runtimes.source:open_original", {"file": file}, module, "original")


def _example(workload: Workload, worker: Worker, folder: Path) -> tuple[list[Tensor], Structure, int]:
    if workload.inputs is not None and workload.file is None:
        leaves, call, positional = flat_call(workload.model, workload.inputs)
        samples.write(folder / "example", [leaves], call, positional)
    elif workload.inputs is not None:
        given = flat_call(lambda *args, **kwargs: None, workload.inputs)
        samples.write(folder / "given", [given[0]], given[1], given[2])
        worker.call("adopt", {"given": str(folder / "given"), "to": str(folder / "example")}, Phase.FIRST_CALL)
    else:
        worker.call("example", {"to": str(folder / "example")}, Phase.FIRST_CALL)
    stored = samples.read(folder / "example")
    return stored[0], stored.call, stored.positional


def _parts(layout: _Layout, example: list[Tensor], data: reading.Batches | None) -> _Parts:
    if data is None:
        calls = [(leaves, None) for leaves in perturbed(example, 3 * TIMING_CALLS)]
        return _Parts(
            calls[2::3],
            [calls[0], *calls[1::3][1:]],
            calls[::3][1:],
            "no data were given, so inputs were made from the example (small noise, shuffled integers) and "
            "quality is judged by fidelity to the original's outputs",
        )
    split = splits.split(data, layout.axes)
    size = layout.size_of(data.items[0].leaves if layout.signature.has_batch else example)
    parts = [part.batches(size) for part in (split.calibrate, split.select, split.confirm)]
    full = [pair for pair in parts[0] if layout.size_of(pair[0]) == size]
    parts[0] = full or parts[0]  # calibrators want batches of one size
    if not layout.signature.has_batch:
        parts = [[pair for pair in part if _shapes(pair[0]) == _shapes(example)] for part in parts]
    return _Parts(parts[0], parts[1], parts[2], data.note)


def perturbed(example: Sequence[Tensor], count: int, seed: int = 0) -> list[list[Tensor]]:
    """Calls like the example: itself first, then with noise on floats and integers drawn from those that occur."""
    generator = torch.Generator().manual_seed(seed)
    return [list(example), *([_perturb(leaf, generator) for leaf in example] for _ in range(count - 1))]


def _perturb(leaf: Tensor, generator: torch.Generator) -> Tensor:
    if leaf.dtype.is_floating_point:
        spread = float(leaf.double().std(correction=0)) if leaf.numel() > 1 else 0.0
        noise = torch.randn(leaf.shape, generator=generator) * INPUT_NOISE * (spread or 1.0)
        return (leaf.double() + noise).to(leaf.dtype)
    if leaf.dtype is torch.bool or leaf.numel() < 2:
        return leaf.clone()
    order = torch.randint(leaf.numel(), (leaf.numel(),), generator=generator)
    return leaf.flatten()[order].reshape(leaf.shape)


def _timing_calls(layout: _Layout, example: list[Tensor], part: list[Any], size: int, seed: int) -> list[list[Tensor]]:
    """Distinct calls of exactly the example's size: whole batches, rows drawn anew where these are too few."""
    if all(axis is None for axis in layout.axes):
        exact = [leaves for leaves, _ in part if _shapes(leaves) == _shapes(example)]
        return (exact or perturbed(example, TIMING_CALLS, seed))[:TIMING_CALLS]
    pool = [leaves for leaves, _ in part if _row_shapes(layout, leaves) == _row_shapes(layout, example)]
    if not pool:
        return perturbed(example, TIMING_CALLS, seed)
    rows = [
        torch.cat(column, dim=axis) if axis is not None else column[0]
        for column, axis in zip(zip(*pool, strict=True), layout.axes, strict=True)
    ]
    total = layout.size_of(rows)
    generator = torch.Generator().manual_seed(seed)
    order = torch.cat([torch.randperm(total, generator=generator) for _ in range(size * TIMING_CALLS // total + 1)])
    return [
        [
            leaf if axis is None else leaf.index_select(axis, order[start : start + size])
            for leaf, axis in zip(rows, layout.axes, strict=True)
        ]
        for start in range(0, size * TIMING_CALLS, size)
    ]


def _shapes(leaves: Sequence[Tensor]) -> list[tuple[int, ...]]:
    return [tuple(leaf.shape) for leaf in leaves]


def _row_shapes(layout: _Layout, leaves: Sequence[Tensor]) -> list[tuple[int, ...]]:
    return [
        tuple(n for i, n in enumerate(leaf.shape) if i != axis) for leaf, axis in zip(leaves, layout.axes, strict=True)
    ]


def _referee(worker: Worker, layout: _Layout, parts: _Parts) -> Referee:
    chosen, count = [], 0
    for leaves, _ in parts.select:
        if count and count + layout.size_of(leaves) > REFEREE_SAMPLES:
            break
        chosen.append(leaves)
        count += layout.size_of(leaves)
    calls = layout.write("referee", chosen)
    exact = layout.folder / "referee-float64.safetensors"
    answer = worker.call("reference", {"calls": str(calls), "to": str(exact)}, Phase.VERIFY)
    original = layout.folder / "referee-original.safetensors"
    return Referee(calls, original, None if answer["reason"] else exact, layout.output_axes)


def _evaluation(layout: _Layout, name: str, part: list[Any]) -> Evaluation:
    calls = layout.write(name, [leaves for leaves, _ in part])
    sizes = [layout.size_of(leaves) for leaves, _ in part]
    reference = layout.folder / f"{name}-original.safetensors"
    return Evaluation(name, calls, [target for _, target in part], sizes, reference, layout.output_axes)


def _assemble(
    workload: Workload,
    folder: Path,
    facts: dict[str, Any],
    layout: _Layout,
    parts: _Parts,
    referee: Referee,
    original: ArmSpec,
    data: reading.Batches | None,
    fixed_shapes: bool,
    native: bool,
) -> Prepared:
    if not parts.select or not parts.confirm:
        raise UsageError(
            f"the data hold too few samples to be split: {len(parts.select)} batches to select and "
            f"{len(parts.confirm)} to confirm; give at least 30 samples"
        )
    example = samples.read(folder / "example")[0]
    calibration = layout.write("calibrate", [leaves for leaves, _ in parts.calibrate]) if parts.calibrate else None
    extra = {Fact.CALIBRATION} if calibration else set()
    extra |= {Fact.NATIVE_ALLOWED} if native else set()
    work = Work(
        workload.name,
        layout.signature,
        frozenset(Fact[name] for name in facts["facts"]) | extra,
        Cost(**facts["cost"]),
        folder,
        calibration,
        folder / "example",
        fixed_shapes or not layout.signature.has_batch,
        tuple(facts["operators"]),
    )
    size = layout.size_of(example)
    notes = tuple(note for note in (facts["note"], parts.note) if note)
    return Prepared(
        work=work,
        original=original,
        program=folder / "original",
        race_calls=layout.write("race", _timing_calls(layout, example, parts.select, size, 1)),
        confirm_calls=layout.write("confirm-timing", _timing_calls(layout, example, parts.confirm, size, 2)),
        select=_evaluation(layout, "select", parts.select),
        confirm=_evaluation(layout, "confirm", parts.confirm),
        referee=referee,
        batch_size=size,
        notes=notes,
        identity=_identity(folder, layout.signature),
    )


def _identity(folder: Path, signature: Signature) -> str:
    """A digest of the captured model, the example and the judged data."""
    total = hashlib.sha256(repr(signature).encode())
    for name in ("original", "example", "select", "confirm"):
        for path in sorted((folder / name).rglob("*")):
            if path.is_file():
                total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:32]
