"""Opening an artifact to serve it, inside the worker: loaded with every check, and what may be batched found out."""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vivace.artifact.golden import largest_error
from vivace.artifact.load import load
from vivace.artifact.manifest import GOLDEN_CALLS, GOLDEN_OUTPUTS, MANIFEST, Golden, Manifest, read_manifest
from vivace.core.errors import ArtifactError, VivaceError
from vivace.core.signature import Signature
from vivace.data import samples
from vivace.measure.clock import SystemClock, time_calls
from vivace.runtimes.batches import resized
from vivace.runtimes.program import Program
from vivace.serve.batching.curve import MOST_SAMPLES, MOST_SECONDS, Curve, best_batch, fit

CALLS_A_POINT = 7
POINT_SECONDS = 0.25
"""Of calls that are timed at one number of samples; at least one is."""


@dataclasses.dataclass(frozen=True)
class Batching:
    """Whether requests may share a call: `why_not` is empty where they may. `points`: measured (samples, seconds)."""

    why_not: str
    most_samples: int = 1
    curve: Curve | None = None
    points: tuple[tuple[int, float], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(node: dict[str, Any]) -> Batching:
        """Read what `to_json` wrote."""
        curve = Curve(**node["curve"]) if node["curve"] else None
        points = tuple((int(count), float(seconds)) for count, seconds in node["points"])
        return Batching(node["why_not"], node["most_samples"], curve, points)


@dataclasses.dataclass(frozen=True)
class Opened:
    """An open artifact. `digest` is of its manifest, which has the digests of all else."""

    program: Program
    manifest: Manifest
    digest: str
    warnings: tuple[str, ...]


def open_artifact(folder: Path, trust: bool, digest: str | None) -> Opened:
    """Load an artifact as any user does. Raises ArtifactError where it is not the one of this digest any more."""
    manifest, found = read_manifest(folder), digest_of(folder)
    if digest is not None and found != digest:
        raise ArtifactError(
            f"{folder} was changed since it was first served; send the server SIGHUP to have it serve the new artifact"
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        program = load(folder, trust=trust)
    return Opened(program, manifest, found, tuple(str(warning.message) for warning in caught))


def digest_of(folder: Path) -> str:
    """The SHA-256 of an artifact's manifest."""
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


def batching_of(opened: Opened, folder: Path) -> Batching:
    """Whether this artifact's requests may share calls, and how many samples are worth putting together, measured here.

    Golden calls are answered alone, sample by sample and joined; what differs by more than loading allows is not
    batched. Every size up to the largest batch is called once, so that no client waits for a first call.
    """
    signature, calls = opened.program.signature, samples.read(folder / GOLDEN_CALLS)
    axes = [spec.batch_axis for spec in signature.inputs]
    points = (
        _measured(opened.program, calls[0], axes) if _is_free(signature) else _measured(opened.program, calls[0], [])
    )
    curve = fit(points)
    why_not = _why_not(opened.manifest, signature) or _depends_on_company(
        opened.program, folder, opened.manifest.golden
    )
    if why_not:
        return Batching(why_not, 1, curve, points)
    most = best_batch(curve)
    try:
        for count in range(1, most + 1):
            opened.program.run(resized(calls[0], axes, count))
    except (VivaceError, RuntimeError) as error:
        return Batching(f"a batch of {count} samples failed: {str(error)[:200]}", 1, curve, points)
    return Batching("", most, curve, points)


def _is_free(signature: Signature) -> bool:
    """Whether any number of samples may be given, counted along the first axis of every tensor."""
    specs = (*signature.inputs, *signature.outputs)
    return all(spec.batch_axis == 0 and spec.shape[0] is None for spec in specs)


def _why_not(manifest: Manifest, signature: Signature) -> str:
    if not _is_free(signature):
        return "not every input and output counts samples along a first axis of any size"
    if manifest.batch_invariant is None:
        return "the artifact does not say that answers are the same alone and in a batch; optimize again to find out"
    return "" if manifest.batch_invariant else "answers are not the same alone and in a batch"


def _depends_on_company(program: Program, folder: Path, golden: Golden) -> str:
    """Why answers to golden samples differ alone or among others from those recorded; empty where they do not."""
    calls, expected = samples.read(folder / GOLDEN_CALLS), samples.read_outputs(folder / GOLDEN_OUTPUTS)
    first, wanted = calls[0], expected[0]
    count = min(4, first[0].shape[0])
    alone = [_copies(program.run([leaf.narrow(0, row, 1) for leaf in first])) for row in range(count)]
    together = [torch.cat(leaves) for leaves in zip(*alone, strict=True)]
    error = largest_error([leaf.narrow(0, 0, count) for leaf in wanted], together)
    for number in range(1, len(calls)):
        other = calls[number]
        if [leaf.shape[1:] for leaf in other] == [leaf.shape[1:] for leaf in first]:
            joined = program.run([torch.cat(leaves) for leaves in zip(other, first, strict=True)])
            own = [leaf.narrow(0, 0, other[0].shape[0]) for leaf in _copies(joined)]
            error = max(error, largest_error(expected[number], own))
    if error <= golden.tolerance:
        return ""
    return f"golden samples are answered otherwise alone or among others: off by {error:.2g} of the largest output"


def _copies(outputs: Sequence[Tensor]) -> list[Tensor]:
    return [leaf.detach().to("cpu", copy=True) for leaf in outputs]


def _measured(program: Program, leaves: Sequence[Tensor], axes: Sequence[int | None]) -> tuple[tuple[int, float], ...]:
    """Least seconds of calls of 1, 2, 4, ... samples made of a golden call; of that call alone where axes are none.

    The least, for a moment's disturbance at the start must not decide how requests are batched for weeks.
    """
    points: list[tuple[int, float]] = []
    count = 1
    while count <= MOST_SAMPLES:
        call = resized(leaves, axes, count) if axes else leaves
        points.append((count, _least_seconds(program, call)))
        if not axes or points[-1][1] > MOST_SECONDS:
            break
        count *= 2
    return tuple(points)


def _least_seconds(program: Program, call: Sequence[Tensor]) -> float:
    def run(_: int) -> Any:
        return program.run(call)

    time_calls(run, [0, 0])
    clock = SystemClock()
    started = clock.now()
    seconds: list[float] = []
    while not seconds or (len(seconds) < CALLS_A_POINT and clock.now() - started < POINT_SECONDS):
        seconds += time_calls(run, [0])
    return max(min(seconds), 1e-9)
