"""`vv.optimize`: a model in, a proven faster artifact out."""

from __future__ import annotations

import atexit
import dataclasses
import datetime
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import vivace
from vivace.api.readme import readme_of
from vivace.artifact import golden, save
from vivace.artifact.load import check_in_worker, load
from vivace.artifact.manifest import PROGRAM, Golden, Manifest
from vivace.core import registry
from vivace.core.errors import EnvironmentFault, UsageError, unknown_name
from vivace.core.machine import Machine
from vivace.core.plan import Plan
from vivace.core.program import Form
from vivace.core.quality import Budget, Gate
from vivace.core.result import Result
from vivace.core.technique import Technique
from vivace.core.workload import Objective, Workload
from vivace.data import samples
from vivace.devices.machine import detect
from vivace.devices.roofline import predicted_seconds
from vivace.measure.clock import SystemClock
from vivace.measure.live import ArmSpec
from vivace.measure.process import Limits
from vivace.report.duration import parse_duration
from vivace.report.progress import Progress, SilentProgress
from vivace.report.results import to_document
from vivace.runtimes import store
from vivace.runtimes.program import Program
from vivace.search.journal import read_journal
from vivace.search.laboratory import compiler_variables
from vivace.search.options import Options
from vivace.search.prepare import Prepared, prepare
from vivace.search.rank import Ranking
from vivace.search.run import Search, identity_of, open_journal
from vivace.search.space import check_usable, space_of

DEVICES = ("cpu", "cuda", "auto")
SHORTEST_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Optimized(Result):
    """The result of `optimize`; `model` is what won, ready to be called like the original."""

    @cached_property
    def model(self) -> Program:
        """The winner (or the original, when nothing beat it), loaded from the artifact when first asked for."""
        if self.artifact is None:
            raise EnvironmentFault("this result has no artifact; run optimize again with out=...")
        return load(self.artifact, trust=True)


@dataclasses.dataclass(frozen=True)
class Preview:
    """What `preview` found: plans in the order in which they look promising, with PREDICTED speed-ups."""

    name: str
    plans: tuple[tuple[Plan, float], ...]
    left_out: Mapping[str, str]
    notes: tuple[str, ...]


def optimize(
    work: Workload,
    budget: Budget = Budget(),
    objective: str = "latency",
    time: str | float = "5m",
    out: str | Path | None = None,
    *,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    gate: str = "strict",
    resume: bool = False,
    native: bool = False,
    fixed_shapes: bool = False,
    device: str = "auto",
    seed: int = 0,
    exhaustive: bool = False,
    progress: Progress | None = None,
    limits: Limits = Limits(load=300),
    extra: Mapping[str, Sequence[type[Technique]]] | None = None,
) -> Optimized:
    """Find the fastest way to run a workload on this machine, prove it, and keep it as an artifact.

    `budget` is the quality that may be lost; `objective` latency, throughput, memory or size; `time` the whole time
    allowed, such as "5m" or 300 (seconds): when it ends, the best plan so far is confirmed and delivered. `out` is the
    artifact's folder; None keeps it in a temporary one until the interpreter exits. `only` and `without` name
    techniques. `gate` is strict, point or fidelity. `resume` goes on where a run with this `out` was stopped. `native`
    lets plans compete whose artifact is native code, which loads only with trust=True. `fixed_shapes` lets plans
    compete that accept exactly the example's shapes. `extra` adds techniques by "module:tuple" for this run.

    Returns the result, with the original as its artifact when nothing beat it. Raises UsageError, UnsupportedModel,
    EnvironmentFault, DiskFull; what a candidate does never raises.

    >>> result = optimize(work, time="2m", out="fast")  # doctest: +SKIP
    >>> result.speedup.low > 1  # doctest: +SKIP
    True
    """
    started = SystemClock().now()
    progress = progress or SilentProgress()
    options = _options(work, budget, objective, time, only, without, gate, exhaustive, limits, extra or {})
    machine = _machine(device)
    destination = _destination(out)
    save.check_destination(destination)
    with _run_folder(destination, resume) as folder, save.disk_errors(folder):
        progress.stage("prepare", f"reading the data and capturing {work.name}")
        prepared = prepare(
            work, folder, fixed_shapes=fixed_shapes, native=native or _names_native(options), limits=limits
        )
        space = space_of(prepared.work, machine, options.known, options.only, options.without)
        check_usable(space, options.only)
        with open_journal(folder, identity_of(prepared, machine, options), resume) as journal:
            staging = _Staging(destination, folder)
            search = Search(prepared, space, options, machine, folder, journal, progress, started, seed)
            result = search.run(staging.deliver)
            return _publish(result, staging, prepared, machine, destination)


def preview(
    work: Workload,
    *,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    native: bool = False,
    fixed_shapes: bool = False,
    device: str = "auto",
) -> Preview:
    """The plans that `optimize` would begin with, most promising first; nothing is built or timed."""
    options = _options(work, Budget(), "latency", "5m", only, without, "strict", False, Limits(), {})
    machine = _machine(device)
    with tempfile.TemporaryDirectory(prefix="vivace-") as folder:
        prepared = prepare(work, Path(folder), fixed_shapes=fixed_shapes, native=native or _names_native(options))
        space = space_of(prepared.work, machine, options.known, options.only, options.without)
        check_usable(space, options.only)
        ranking = Ranking(prepared.work.cost, lambda cost: predicted_seconds(cost, machine))
        original = ranking.predicted_seconds(Plan())
        plans = ranking.ordered({*space.seeds(), *space.neighbours(Plan())})
        return Preview(
            work.name,
            tuple((plan, original / ranking.predicted_seconds(plan)) for plan in plans),
            space.left_out,
            prepared.notes,
        )


class _Staging:
    """Artifacts that are being made, one folder a finalist, beside the destination so that a rename can publish one."""

    def __init__(self, destination: Path, run_folder: Path) -> None:
        self._root = run_folder / "staged"
        shutil.rmtree(self._root, ignore_errors=True)
        self._folders: dict[Plan, Path] = {}

    def deliver(self, plan: Plan, program: Path) -> ArmSpec:
        """Copy a program into an artifact's folder and say how a worker opens it from there."""
        folder = self._root / str(len(self._folders))
        save.stage_program(program, folder)
        self._folders[plan] = folder
        if any(technique.program_entry for technique in plan):
            entry = next(t.program_entry for t in plan if t.program_entry)
            return ArmSpec(
                entry, {"folder": str(folder / PROGRAM), "trust": True, "plan": plan.to_json()}, None, str(plan)
            )
        return ArmSpec("vivace.artifact.load:open_artifact", {"folder": str(folder), "trust": True}, None, str(plan))

    def folder(self, plan: Plan) -> Path:
        """The folder of a plan that was delivered."""
        return self._folders[plan]


def _publish(result: Result, staging: _Staging, prepared: Prepared, machine: Machine, destination: Path) -> Optimized:
    """Seal the winner's folder with its proof and move it to its place."""
    folder = staging.folder(result.plan)
    logs, variables = prepared.work.folder, compiler_variables(prepared.work.folder)
    with save.disk_errors(destination):
        recorded = golden.record(folder, prepared.confirm_calls, result.plan.effect, logs / "golden", variables)
        final = Optimized(
            **{f.name: getattr(result, f.name) for f in dataclasses.fields(Result)} | {"artifact": destination}
        )
        manifest = _manifest(final, folder, recorded, prepared, machine)
        texts = {"results.json": to_document(final).to_text(), "README.md": readme_of(final, manifest)}
        save.seal(folder, manifest, texts)
        check_in_worker(folder, logs / "check", variables)
        save.publish(folder, destination)
    return final


def _manifest(result: Result, folder: Path, recorded: Golden, prepared: Prepared, machine: Machine) -> Manifest:
    model = store.read_model(folder / PROGRAM)
    document = to_document(result).model_dump(mode="json")
    shapes = samples.read(prepared.confirm_calls)
    return Manifest(
        vivace_version=vivace.__version__,
        name=result.name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        status=result.status.value,
        plan=result.plan.to_json(),
        plan_name=str(result.plan),
        form=model.form.value,
        executes_native_code=model.form is Form.AOT_INDUCTOR,
        accepts=model.signature.describe_call(),
        proved_on_shapes=[[list(leaf.shape) for leaf in shapes[0]]],
        machine=machine.to_json(),
        versions=dict(result.conditions["versions"]),
        speed={"speedup": document["speedup"], "verdict": document["verdict"]},
        quality=document["quality"],
        golden=recorded,
        files={},
    )


def _options(
    work: Workload,
    budget: Budget,
    objective: str,
    time: str | float,
    only: Sequence[str],
    without: Sequence[str],
    gate: str,
    exhaustive: bool,
    limits: Limits,
    extra: Mapping[str, Sequence[type[Technique]]],
) -> Options:
    if not isinstance(work, Workload):
        raise UsageError(f"work is a {type(work).__name__}; allowed is a vivace.Workload(model, inputs=...)")
    if not isinstance(budget, Budget):
        raise UsageError(f"budget is {budget!r}; allowed is a vivace.Budget, such as Budget(drop=0.01)")
    known = {**registry.techniques(), **{kind.name(): kind for kinds in extra.values() for kind in kinds}}
    for name in (*only, *without):
        if name not in known:
            raise unknown_name("technique", name, known)
    seconds = parse_duration(time) if isinstance(time, str) else float(time)
    if not seconds >= SHORTEST_SECONDS:
        raise UsageError(
            f"time is {time}; allowed are {SHORTEST_SECONDS:g} seconds or more, since even the original "
            "takes that long to be measured"
        )
    chosen = _choice(Gate, "gate", gate)
    metric = None if chosen is Gate.FIDELITY else work.metric
    return Options(
        budget,
        chosen,
        _choice(Objective, "objective", objective),
        seconds,
        metric,
        known,
        tuple(only),
        tuple(without),
        tuple(extra),
        exhaustive,
        limits,
    )


def _choice(kind: Any, label: str, value: Any) -> Any:
    value = getattr(value, "value", value)
    allowed = [member.value for member in kind]
    if value not in allowed:
        raise unknown_name(label, str(value), allowed)
    return kind(value)


def _names_native(options: Options) -> bool:
    """Naming a technique of native code under `only` is the permission to use it."""
    return "aot-inductor" in options.only


def _machine(device: str) -> Machine:
    """The machine, without its GPUs when the CPU was asked for. Raises for a device that is unknown or missing."""
    if device not in DEVICES:
        raise unknown_name("device", device, DEVICES)
    machine = detect()
    if device == "cuda" and not machine.gpus:
        raise EnvironmentFault(
            "--device cuda: PyTorch sees no CUDA device here; use --device cpu, or install a CUDA "
            "build of PyTorch and check `vivace doctor`"
        )
    return dataclasses.replace(machine, gpus=()) if device == "cpu" else machine


def _destination(out: str | Path | None) -> Path:
    if out is not None:
        return Path(out)
    folder = Path(tempfile.mkdtemp(prefix="vivace-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder / "artifact"


@contextmanager
def _run_folder(destination: Path, resume: bool) -> Iterator[Path]:
    """Where a run keeps its journal and programs, beside the artifact; kept when the run is stopped, gone when done."""
    folder = destination.absolute().parent / ".vivace" / destination.name
    with save.disk_errors(folder):
        if not resume:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    except BaseException:
        if not any(True for _ in read_journal(folder / "journal.jsonl")):
            _remove(folder)
        raise
    _remove(folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.is_dir() and not any(folder.parent.iterdir()):
        folder.parent.rmdir()
