"""`vv.measure`: which of two is faster, by how much, and how sure that is."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vivace.api.target import resolve
from vivace.artifact.load import check_files
from vivace.artifact.manifest import GOLDEN_CALLS, read_manifest
from vivace.core.errors import ArtifactError, UsageError
from vivace.core.measurement import Comparison
from vivace.core.workload import MODEL_FILES, Workload
from vivace.data import samples
from vivace.measure.fidelity import compare_outputs
from vivace.measure.live import ArmSpec, LiveArm
from vivace.measure.paired import StopRule, compare, measure_noise
from vivace.measure.process import Limits, Phase
from vivace.report.duration import parse_duration
from vivace.report.progress import Progress, SilentProgress
from vivace.runtimes.calls import flat_call
from vivace.search.prepare import TIMING_CALLS, perturbed

Side = Workload | nn.Module | str | Path


def measure(
    a: Side,
    b: Side,
    *,
    inputs: Any = None,
    time: str | float = "1m",
    restarts: int = 3,
    trust: bool = False,
    progress: Progress | None = None,
    limits: Limits = Limits(load=300),
) -> Comparison:
    """Compare two models: paired and interleaved, each in its own fresh process, in `restarts` pairs of processes.

    A side is a Workload, a torch.nn.Module, the path of a model file or of an artifact, or a target as text
    ("file.py:name"). `inputs` is one example call; without it the first side that has one is asked: a Workload its
    example, an artifact its golden calls. `time` is how long the blocks may take in all. The speed-up is A's time
    divided by B's: above 1, B is faster. The note of the comparison says how close the answers are.

    Raises UsageError when there is no example call or a side does not accept it; ArtifactError for an artifact that
    was changed, or with native code unless `trust=True`.
    """
    progress = progress or SilentProgress()
    seconds = parse_duration(time) if isinstance(time, str) else float(time)
    if restarts < 1 or not seconds > 0:
        raise UsageError(f"restarts={restarts} and time={time}: both must be positive")
    one, other = _side(a, "A", trust), _side(b, "B", trust)
    with tempfile.TemporaryDirectory(prefix="vivace-") as name:
        folder = Path(name)
        calls = _calls(one, other, inputs, folder)
        progress.stage("answers", "both sides answer the same calls")
        closeness = _closeness(one.arm, other.arm, calls, folder, limits)
        progress.stage("noise", "A against itself")
        rule = StopRule(max_seconds=seconds)
        noise = measure_noise(
            one.arm, calls, folder / "noise", rule=dataclasses.replace(rule, max_seconds=seconds / 4), limits=limits
        )
        progress.stage("measure", f"{restarts} fresh pairs of processes")
        found = compare(
            one.arm,
            other.arm,
            calls,
            folder / "pairs",
            rule=rule,
            restarts=restarts,
            noise_floor=noise.noise_floor,
            limits=limits,
            progress=progress.note,
        )
    return dataclasses.replace(found, note="; ".join(text for text in (closeness, found.note) if text))


@dataclasses.dataclass(frozen=True)
class _Side:
    """How a worker opens one side, and an example call of it, if it has one: as inputs, or as stored calls."""

    arm: ArmSpec
    model: Any
    inputs: Any = None
    golden: Path | None = None


def _side(given: Side, label: str, trust: bool) -> _Side:
    if isinstance(given, str):
        given = resolve(given)
    if isinstance(given, Path):
        given = Workload(given) if given.suffix in MODEL_FILES else given
    if isinstance(given, Path):
        return _artifact_side(given, label, trust)
    if isinstance(given, nn.Module):
        return _Side(ArmSpec("vivace.runtimes.source:open_original", {"file": None}, given, label), given)
    if isinstance(given, Workload):
        file = str(given.file.absolute()) if given.file else None
        payload = None if file else given.model
        return _Side(
            ArmSpec("vivace.runtimes.source:open_original", {"file": file}, payload, label), given.model, given.inputs
        )
    raise UsageError(
        f"{label} is a {type(given).__name__}; allowed are a Workload, a torch.nn.Module, and the path of "
        "a model file or an artifact"
    )


def _artifact_side(folder: Path, label: str, trust: bool) -> _Side:
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    if manifest.executes_native_code and not trust:
        raise ArtifactError(
            f"{folder} contains native code, which runs with your rights; give trust=True (--trust) if "
            "you built it or trust whoever did"
        )
    arm = ArmSpec("vivace.artifact.load:open_artifact", {"folder": str(folder.absolute()), "trust": trust}, None, label)
    return _Side(arm, None, None, folder / GOLDEN_CALLS)


def _calls(one: _Side, other: _Side, inputs: Any, folder: Path) -> Path:
    """Stored calls that both sides are timed with."""
    for side in (one, other):
        example = inputs if inputs is not None else side.inputs
        if example is not None:
            model = next((s.model for s in (one, other) if isinstance(s.model, nn.Module)), _takes_anything)
            leaves, call, positional = flat_call(model, example)
            return samples.write(folder / "calls", perturbed(leaves, TIMING_CALLS), call, positional)
    for side in (one, other):
        if side.golden is not None:
            stored = samples.read(side.golden)
            return samples.write(folder / "calls", _stretched(list(stored)), stored.call, stored.positional)
    raise UsageError("neither side says how it is called; give inputs=(x,), a Workload, or an artifact")


def _takes_anything(*args: Any, **kwargs: Any) -> None:
    """Stands in for a model whose parameters' names are not known: arguments then go by position."""


def _stretched(calls: Sequence[Sequence[Tensor]]) -> list[Sequence[Tensor]]:
    return [*calls, *perturbed(calls[0], TIMING_CALLS - len(calls) + 1)[1:]]


def _closeness(one: ArmSpec, other: ArmSpec, calls: Path, folder: Path, limits: Limits) -> str:
    """A sentence on how close B's answers are to A's, before anything is timed."""
    answers = []
    for label, arm in (("a", one), ("b", other)):
        with LiveArm(arm, calls, folder / label, limits) as live:
            live.start(warm_seconds=0.0)
            to = folder / f"{label}.safetensors"
            live.ask("outputs", {"calls": str(calls), "to": str(to)}, Phase.VERIFY)
            answers.append(samples.read_outputs(to))
    first, second = ([list(call) for call in stored] for stored in answers)
    if [[t.shape for t in call] for call in first] != [[t.shape for t in call] for call in second]:
        return "the answers have different shapes, so the two do not compute the same"
    close = compare_outputs(first, second)
    agreement = f", top-1 agreement {close.agreement:.1%}" if close.agreement is not None else ""
    return f"answers of B against A's: {close.sqnr_db:.1f} dB SQNR{agreement} on {close.samples} samples"
