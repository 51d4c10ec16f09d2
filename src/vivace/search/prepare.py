"""Getting ready: read the data once, look at the model in a worker, lay all that a search needs on the disk."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from vivace.core.cost import Cost
from vivace.core.errors import UsageError, WorkerFailure
from vivace.core.facts import Fact
from vivace.core.layer import Layer, chosen
from vivace.core.machine import JaxPlatform
from vivace.core.signature import Signature
from vivace.core.work import Lesson, Work
from vivace.core.workload import Mix, Workload
from vivace.data import reading, samples, splits
from vivace.measure.forking import client, reserve
from vivace.measure.live import installed_modules
from vivace.measure.paired import ArmSpec
from vivace.measure.process import Limits, Phase, Worker
from vivace.runtimes.calls import flat_call
from vivace.runtimes.source import device_of
from vivace.search.calls import throughput as throughputs
from vivace.search.calls.inputs import TIMING_CALLS, shapes_of, timing_calls
from vivace.search.calls.joining import JOINED_BYTES, MOST_TOGETHER, Joining, joining_of
from vivace.search.calls.mix import Call, Examples, check_alike, examples_of, made, mixed
from vivace.search.evaluation import Evaluation
from vivace.search.identity import digest_of
from vivace.search.judge import Group, Referee
from vivace.search.schedule import CONFIRM_SHARE, SELECT_SHARE

REFEREE_SAMPLES = 64
FEWEST_SAMPLES = 64
ANSWER_BYTES = 1 << 30
"""Of answers that a worker may hold while it answers one part."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """All that a search needs. `original` opens the user's own model; `program` is its captured form.

    `race_calls` and `confirm_calls` are for timing; `select` and `confirm` for judging. `notes` are sentences for the
    report; `identity` is equal for the same model, data and shapes. `examples` are those of every shape. `joining` says
    how many calls the original answers at once for judging. `lesson` is what pruned weights may be trained by, None
    where the user gave no loss. `device` is where the original lies, and the calls that programs are given.
    `platform` is what programs of form XLA run on; None leaves that to JAX.
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
    examples: Examples
    joining: Joining
    lesson: Lesson | None = None
    device: str = "cpu"
    platform: JaxPlatform | None = None
    unlike: str = ""


def prepare(
    workload: Workload,
    folder: Path,
    *,
    fixed_shapes: bool = False,
    native: bool = False,
    keep: Sequence[str] = (),
    throughput: bool = False,
    seconds: float = 300.0,
    limits: Limits = Limits(),
) -> Prepared:
    """Inspect a workload. Raises UsageError or UnsupportedModel with what is wrong with it.

    `keep` names layers that stay in float, or patterns of them. `throughput` measures with the batch at which the
    original is quickest a sample, in place of the example's. `seconds` is the user's whole time: it bounds how many
    samples are judged.
    """
    _refuse_options(workload, fixed_shapes, throughput)
    original = original_arm(workload)
    with contextlib.ExitStack() as stack:
        with reserve.going():
            client.share(installed_modules(original.payload))
            worker = stack.enter_context(Worker(folder / "inspect", limits, fresh=False))
            worker.open("vivace.search.inspection:open_inspection", original.arguments, original.payload, Phase.LOAD)
        examples = _examples(workload, worker, folder)
        example = examples.main
        checked = worker.call("check", {"examples": str(folder / "examples")}, Phase.FIRST_CALL)
        data = _read(workload, samples.read(folder / "example"))
        varying = data.varying if data is not None else [frozenset[int]() for _ in example]
        asked = {
            "example": str(folder / "example"),
            "examples": str(folder / "examples"),
            "varying": [sorted(own | more) for own, more in zip(examples.varying, varying, strict=True)],
            "fixed_shapes": fixed_shapes,
            "to": str(folder / "original"),
        }
        with reserve.going():
            facts = worker.call("capture", asked, Phase.CONVERT)
        layers = tuple(Layer(**layer) for layer in facts["layers"])
        kept = chosen(layers, keep)
        layout = _Layout(folder, examples, tuple(facts["batch_axes"]), Signature.from_json(facts["signature"]))
        sample_bytes = facts["cost"]["activation_bytes"] / layout.size_of(example)
        joining, checked["seconds"] = _joining(worker, layout, data, checked["seconds"], sample_bytes)
        most = [_most_samples(layout, example, checked, share * seconds) for share in (SELECT_SHARE, CONFIRM_SHARE)]
        larger = throughput and layout.signature.has_batch
        timed, note = _larger(worker, layout, example) if larger else (example, "")
        parts = _parts(layout, timed, data, most)
        referee = _referee(worker, layout, parts)
    identity = digest_of(folder, layout.signature, data)
    prepared = _assemble(
        workload, folder, facts, layout, parts, referee, original, fixed_shapes, native, joining, identity
    )
    cost, growth = prepared.work.cost, layout.size_of(timed) / layout.size_of(example)
    cost = cost.replace(flops=cost.flops * growth, activation_bytes=cost.activation_bytes * growth)
    work = dataclasses.replace(prepared.work, layers=layers, keep=kept, cost=cost)
    notes = tuple(told for told in (*prepared.notes, note) if told)
    unlike = data.unlike if data is not None else ""
    return dataclasses.replace(prepared, work=work, notes=notes, device=original.device, unlike=unlike)


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Where things go, and how a call looks."""

    folder: Path
    examples: Examples
    axes: tuple[int | None, ...]
    signature: Signature

    def write(self, name: str, calls: Sequence[Sequence[Tensor]], mix: Mix | None = None) -> Path:
        """Store calls under a name."""
        return samples.write(self.folder / name, calls, self.examples.call, self.examples.positional, mix)

    def write_timing(self, name: str, part: Sequence[Any], example: Sequence[Tensor], seed: int) -> Path:
        """Store the calls that arms are timed with, drawn from a part of the data: like `example`, or of every shape in
        proportion."""
        wanted = self.examples.calls if self.examples.is_mixed else (example,)
        pools = [timing_calls(self.axes, one, part, seed) for one in wanted]
        return self.write(name, *mixed(pools, self.examples.weights))

    @property
    def output_axes(self) -> list[int | None]:
        """The batch axis of each output."""
        return [spec.batch_axis for spec in self.signature.outputs]

    def size_of(self, leaves: Sequence[Tensor]) -> int:
        """How many samples a call holds; 1 where there is no batch axis."""
        return next((leaf.shape[axis] for leaf, axis in zip(leaves, self.axes, strict=True) if axis is not None), 1)

    def judged_size(self, leaves: Sequence[Tensor], target: Any) -> int:
        """How many scores a metric should give for a call: its samples, or its targets where there is no batch axis."""
        if any(axis is not None for axis in self.axes):
            return self.size_of(leaves)
        return max(reading.target_sizes(target), default=1)


@dataclasses.dataclass(frozen=True)
class _Parts:
    """The calls and targets of each part, and how they came about."""

    calibrate: list[Any]
    select: list[Any]
    confirm: list[Any]
    note: str


def _refuse_options(workload: Workload, fixed_shapes: bool, throughput: bool) -> None:
    """What cannot be asked of calls in several shapes."""
    if len(workload.mix) > 1 and fixed_shapes:
        raise UsageError(
            f"fixed_shapes (--fixed-shapes) lets plans take exactly one shape, and mix has {len(workload.mix)}; leave "
            "one of them out"
        )
    if len(workload.mix) > 1 and throughput:
        raise UsageError(
            "the objective throughput measures one batch that suits the original, and mix says which shapes come; "
            "leave mix out, or take the objective latency"
        )


def _most_samples(layout: _Layout, example: Sequence[Tensor], checked: dict[str, Any], seconds: float) -> int:
    """How many samples of one part the original can answer in `seconds`, and within its share of the memory."""
    size = layout.size_of(example)
    by_time = seconds / max(checked["seconds"], 1e-9) * size
    by_bytes = ANSWER_BYTES / max(checked["answer_bytes"], 1) * size
    return max(FEWEST_SAMPLES, int(min(by_time, by_bytes)))


def _joining(
    worker: Worker, layout: _Layout, data: reading.Batches | None, seconds: float, sample_bytes: float
) -> tuple[Joining, float]:
    """How many calls the original may answer at once, tried on the first ones, and seconds of one of them then.

    `sample_bytes` are what the activations of one sample may take.
    """

    def ask(alone: list[Call], joined: list[Call]) -> dict[str, Any]:
        written = {"alone": str(layout.write("alone", alone)), "joined": str(layout.write("joined", joined))}
        axes = {"inputs": layout.axes, "outputs": layout.output_axes}
        return dict(worker.call("together", {**written, **axes}, Phase.VERIFY))

    most = int(min(MOST_TOGETHER, JOINED_BYTES / max(sample_bytes, 1)))
    is_free = data is not None and layout.signature.has_batch and not layout.examples.is_mixed
    calls = [list(item.leaves) for item in data.items[:most]] if data is not None and is_free else []
    return joining_of(calls, layout.axes, tuple(layout.output_axes), ask, seconds, most)


def _larger(worker: Worker, layout: _Layout, example: list[Tensor]) -> tuple[list[Tensor], str]:
    """The example at the batch that suits a throughput, stored in the place of the given one, and what was found."""
    size = layout.size_of(example)

    def pace(leaves: list[Tensor]) -> float:
        calls = layout.write("pace", [leaves])
        return float(worker.call("pace", {"calls": str(calls)}, Phase.VERIFY)["seconds"])

    found = throughputs.paces(example, layout.axes, size, pace)
    chosen_size = throughputs.best_batch(found)
    larger = throughputs.grown(example, layout.axes, size, chosen_size)
    layout.write("example", [larger])
    return larger, throughputs.told(found, chosen_size)


def _read(workload: Workload, example: samples.StoredCalls) -> reading.Batches | None:
    if workload.data is None:
        return None
    args, kwargs = example.arguments(0)
    needs_target = workload.metric is not None or workload.loss is not None
    return reading.read(workload.data, args or kwargs, needs_target=needs_target)


def original_arm(workload: Workload) -> ArmSpec:
    """How a worker opens the user's own model. Raises UsageError for one that is spread over devices."""
    file = str(workload.file.absolute()) if workload.file else None
    module = None if file else workload.model
    entry = "vivace.runtimes.source:open_original"
    return ArmSpec(entry, {"file": file}, module, "original", device_of(workload.model))


def _examples(workload: Workload, worker: Worker, folder: Path) -> Examples:
    """The examples of every shape, stored as given, and beside them as `example` with the most frequent one first."""
    to = folder / "examples"
    if not workload.examples:
        worker.call("example", {"to": str(to)}, Phase.FIRST_CALL)
    elif workload.file is None:
        _write_examples(workload, workload.model, to)
    else:
        _write_examples(workload, lambda *args, **kwargs: None, folder / "given")
        worker.call("adopt", {"given": str(folder / "given"), "to": str(to)}, Phase.FIRST_CALL)
    found = examples_of(samples.read(to))
    samples.write(folder / "example", found.by_weight, found.call, found.positional)
    return found


def _write_examples(workload: Workload, called: Any, to: Path) -> None:
    calls = [flat_call(called, inputs) for inputs in workload.examples]
    check_alike(calls)
    mix = Mix(tuple(range(len(calls))), workload.weights) if len(calls) > 1 else None
    samples.write(to, [leaves for leaves, _, _ in calls], *calls[0][1:], mix)


def _parts(layout: _Layout, example: list[Tensor], data: reading.Batches | None, most: Sequence[int]) -> _Parts:
    if data is None:
        examples = layout.examples
        if not examples.is_mixed:
            examples = dataclasses.replace(examples, calls=(example,))
        parts = [[(leaves, None) for leaves in part] for part in made(examples, TIMING_CALLS)]
        return _Parts(
            parts[0],
            parts[1],
            parts[2],
            "no data were given, so inputs were made from the example (small noise, shuffled integers) and "
            "quality is judged by fidelity to the original's outputs",
        )
    split = splits.split(data, layout.axes)
    size = layout.size_of(data.items[0].leaves if layout.signature.has_batch else example)
    parts = [part.batches(size) for part in (split.calibrate, split.select, split.confirm)]
    full = [pair for pair in parts[0] if layout.size_of(pair[0]) == size]
    parts[0] = full or parts[0]  # calibrators want batches of one size
    if not layout.signature.has_batch:
        known = [shapes_of(leaves) for leaves in (example, *layout.examples.calls)]
        parts = [[pair for pair in part if shapes_of(pair[0]) in known] for part in parts]
    if not parts[1] or not parts[2]:
        raise UsageError(
            f"the data hold too few samples to be split: {len(parts[1])} batches to select and {len(parts[2])} to "
            "confirm fit the example's shapes; give at least 30 samples of these shapes"
        )
    judged = [_first(layout, part, count) for part, count in zip(parts[1:], most, strict=True)]
    used, held = sum(map(len, judged)), len(parts[1]) + len(parts[2])
    told = f"{used} of {held} batches are judged, which is what the time allows" if used < held else ""
    return _Parts(parts[0], judged[0], judged[1], "; ".join(text for text in (data.note, told) if text))


def _first(layout: _Layout, part: list[Any], most: int) -> list[Any]:
    """As many of a part's batches as hold at most that many samples; one at the least."""
    taken: list[Any] = []
    count = 0
    for leaves, target in part:
        if taken and count + layout.size_of(leaves) > most:
            break
        taken.append((leaves, target))
        count += layout.size_of(leaves)
    return taken


def _referee(worker: Worker, layout: _Layout, parts: _Parts) -> Referee:
    chosen = [leaves for leaves, _ in _first(layout, parts.select, REFEREE_SAMPLES)]
    groups = [Group("", len(chosen))]
    if layout.examples.is_mixed:
        chosen, groups = _of_each_shape(layout, parts)
    calls = layout.write("referee", chosen)
    exact = layout.folder / "referee-float64.safetensors"
    original = layout.folder / "referee-original.safetensors"
    try:
        reason = worker.call("reference", {"calls": str(calls), "to": str(exact)}, Phase.VERIFY)["reason"]
    except WorkerFailure as failure:  # no memory or no time for float64: there is no referee then
        reason = failure.reason
    return Referee(calls, original, None if reason else exact, layout.output_axes, tuple(groups))


def _of_each_shape(layout: _Layout, parts: _Parts) -> tuple[list[list[Tensor]], list[Group]]:
    """Calls of every shape, one at the least and about as many samples of each, and which are whose."""
    chosen: list[list[Tensor]] = []
    groups = []
    share = REFEREE_SAMPLES // len(layout.examples.calls)
    for number, example in enumerate(layout.examples.calls):
        pool = [(leaves, None) for leaves in timing_calls(layout.axes, example, parts.select, 3)]
        taken = [leaves for leaves, _ in _first(layout, pool, share)]
        chosen += taken
        groups.append(Group(layout.examples.name(number), len(taken)))
    return chosen, groups


def _evaluation(layout: _Layout, name: str, part: list[Any]) -> Evaluation:
    calls = layout.write(name, [leaves for leaves, _ in part])
    sizes = [layout.judged_size(leaves, target) for leaves, target in part]
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
    fixed_shapes: bool,
    native: bool,
    joining: Joining,
    identity: str,
) -> Prepared:
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
        original=folder / "original",
    )
    lesson = None if workload.loss is None else Lesson(workload.loss, [target for _, target in parts.calibrate])
    size = layout.size_of(example)
    notes = tuple(note for note in (facts["note"], parts.note) if note)
    return Prepared(
        work=work,
        original=original,
        program=folder / "original",
        race_calls=layout.write_timing("race", parts.select, example, 1),
        confirm_calls=layout.write_timing("confirm-timing", parts.confirm, example, 2),
        select=_evaluation(layout, "select", parts.select),
        confirm=_evaluation(layout, "confirm", parts.confirm),
        referee=referee,
        batch_size=size,
        notes=notes,
        identity=identity,
        examples=layout.examples,
        joining=joining,
        lesson=lesson,
    )
