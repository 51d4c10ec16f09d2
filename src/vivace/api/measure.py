"""`vv.measure`: which of two is faster, by how much, and how sure that is."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from vivace.api.sides import Side, Sides
from vivace.core.errors import UsageError, WorkerFailure
from vivace.core.measurement import Comparison
from vivace.core.workload import Workload
from vivace.data import samples
from vivace.measure.fidelity import compare_outputs
from vivace.measure.live import ArmSpec, LiveArm
from vivace.measure.paired import StopRule, compare, measure_noise
from vivace.measure.process import Limits, Phase
from vivace.report.duration import parse_duration
from vivace.report.progress import Progress, SilentProgress
from vivace.search.caches import as_delivered, compiler_variables


def measure(
    a: Side,
    b: Side,
    *,
    inputs: Any = None,
    work: Workload | None = None,
    time: str | float = "1m",
    restarts: int = 3,
    trust: bool = False,
    progress: Progress | None = None,
    limits: Limits = Limits(load=300),
) -> Comparison:
    """Compare two models: paired and interleaved, each in its own fresh process, in `restarts` pairs of processes.

    A side is a Workload, a torch.nn.Module, a Plan (applied to `work`; the empty plan is its captured original), the
    path of a model file or of an artifact, or a target as text ("file.py:name"). `inputs` is one example call; without
    it the first side that has one is asked: a Workload its example, an artifact its golden calls, a file its declared
    shapes. `time` is how long the blocks may take in all. The speed-up is A's time divided by B's: above 1, B is
    faster. The note of the comparison says how close the answers are.

    Raises UsageError when there is no example call or a side does not accept it; ArtifactError for an artifact that
    was changed, or with native code unless `trust=True`; WorkerFailure when a side fails.
    """
    progress = progress or SilentProgress()
    seconds = parse_duration(time)
    if restarts < 1:
        raise UsageError(f"restarts is {restarts}; allowed is 1 or more, and 3 for a number that you pass on")
    with tempfile.TemporaryDirectory(prefix="vivace-") as name:
        folder = Path(name)
        sides = Sides(folder, work, trust, limits)
        one, other = sides.open(a, "A"), sides.open(b, "B")
        calls = sides.calls(one, other, inputs)
        progress.stage("answers", "both sides answer the same calls")
        closeness = _closeness(one.arm, other.arm, calls, folder, limits)
        rule, variables = StopRule(max_seconds=seconds), as_delivered(compiler_variables(folder))
        progress.stage("noise", "A against itself")
        quick = dataclasses.replace(rule, max_seconds=seconds / 4)
        noise = measure_noise(
            one.arm, calls, folder / "noise", rule=quick, limits=limits, environment_variables=variables
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
            environment_variables=variables,
            progress=progress.note,
        )
    return dataclasses.replace(found, note="; ".join(text for text in (closeness, found.note) if text))


def _closeness(one: ArmSpec, other: ArmSpec, calls: Path, folder: Path, limits: Limits) -> str:
    """A sentence on how close B's answers are to A's, before anything is timed."""
    answers = []
    for label, arm in (("a", one), ("b", other)):
        with LiveArm(arm, calls, folder / label, limits, compiler_variables(folder)) as live:
            live.start(warm_seconds=0.0)
            to = folder / f"{label}.safetensors"
            live.ask("outputs", {"calls": str(calls), "to": str(to)}, Phase.VERIFY)
            answers.append(samples.read_outputs(to))
    try:
        close = compare_outputs(answers[0], answers[1])
    except WorkerFailure as failure:
        return f"the two do not compute the same: {failure.reason}"
    agreement = f", top-1 agreement {close.agreement:.1%}" if close.agreement is not None else ""
    return f"answers of B against A's: {close.sqnr_db:.1f} dB SQNR{agreement} on {close.samples} samples"
