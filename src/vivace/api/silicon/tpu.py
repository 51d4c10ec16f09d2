"""`vv.synthesize` for a TPU: StableHLO that is compared with the original, and Google's compiler asked about it."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from vivace.api.silicon.publish import versions
from vivace.api.silicon.steps import Allowance, Steps
from vivace.api.silicon.tpu_worker import MOST_HOST_DEVICES
from vivace.artifact import golden, save
from vivace.artifact.load import check_in_worker
from vivace.artifact.manifest import PROGRAM, Golden, Manifest, PlanStep
from vivace.core.errors import ProofFailed, UnsupportedModel, UsageError, WorkerFailure
from vivace.core.measurement import Outcome
from vivace.core.plan import Plan
from vivace.core.program import Form, Model
from vivace.core.registry import is_installed
from vivace.core.technique import Effect
from vivace.core.workload import Workload
from vivace.data import samples
from vivace.devices.catalog import device
from vivace.devices.machine import detect
from vivace.hardware.chip.parts import unknown_chip
from vivace.hardware.chip.tpus import TPUS, Mesh, TpuChip
from vivace.hardware.compiled import (
    Bfloat16Check,
    Collective,
    MeshCheck,
    SplitWeight,
    TpuCompilation,
    TpuEstimate,
    TpuStatus,
)
from vivace.measure.process import Limits, Phase, Worker
from vivace.report.duration import parse_duration
from vivace.report.progress import Progress, SilentProgress
from vivace.report.results import RESULTS
from vivace.report.silicon.tpu import document_of
from vivace.runtimes import store
from vivace.runtimes.xla import ahead, stablehlo
from vivace.search.caches import compiler_variables
from vivace.search.prepare import Prepared, prepare
from vivace.techniques.compile.xla import Xla

PREFIX = "tpu"
"""Of the names of chips that are compiled for here."""
INSTALL_COMPILER = "install Google's compiler, which comes under its own terms: pip install 'jax[tpu]'"
SHORTEST_SECONDS = 20.0
PUBLISHING = 0.25
"""Of the whole time, kept for proving the artifact."""


def compile_for_tpu(
    work: Workload,
    chip: str,
    out: Path,
    time: str | float,
    progress: Progress | None = None,
    mesh: Mesh | None = None,
) -> TpuCompilation:
    """Translate a network to StableHLO, compare it with the original, and compile it for a TPU that is not there.

    What the compiler says is PREDICTED: memory by kind, operations, bytes, and its own estimate of the time, for
    float32 matrices multiplied as such and in one pass of bfloat16; with a mesh for each of its chips, and what they
    send each other. Without the compiler the StableHLO alone is written. `time` bounds the whole. Raises UsageError,
    UnsupportedModel for a network without a translation, ProofFailed where it differs from the original, MissingExtra
    without JAX, WorkerFailure.
    """
    found = _chip(chip)
    mesh = None if mesh is None or mesh.chips == 1 else mesh
    topology = found.slice_of(mesh or Mesh())
    if not isinstance(work, Workload):
        raise UsageError(f"work is a {type(work).__name__}; allowed is a vivace.Workload(model, inputs=...)")
    seconds = parse_duration(time)
    if seconds < SHORTEST_SECONDS:
        raise UsageError(f"time (--time) is {time}; allowed are {SHORTEST_SECONDS:g} seconds or more")
    allowance = Allowance(seconds)
    save.check_destination(out)
    stablehlo.require_jax()
    steps = Steps(progress or SilentProgress())
    with TemporaryDirectory(prefix="vivace-") as name, save.disk_errors(Path(name)), _within(seconds):
        folder = Path(name)
        with steps.step("capture", f"capturing {work.name}"):
            left = allowance.left(PUBLISHING)
            prepared = prepare(work, folder / "work", seconds=left, limits=Limits().within(left))
        model = store.describe(prepared.program)
        if model.form is not Form.TORCH:
            raise UnsupportedModel(
                f"{work.name} is a model of form {model.form.value}; give a PyTorch module, a .pt2 or a .keras file"
            )
        _check_mesh(mesh, prepared, model)
        job = _Job(prepared, found, topology, mesh, folder, allowance, steps)
        result = _told(job.answers(), job, work)
        with steps.step("artifact", f"proving it as an artifact at {out}"):
            result = dataclasses.replace(result, out=out, seconds=steps.seconds)
            _publish(result, prepared, folder, out, Limits().within(allowance.left()))
    return result


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Say of a step that ran out of time that it is the user's whole time that bounds it."""
    try:
        yield
    except WorkerFailure as failure:
        if failure.outcome is not Outcome.TIMEOUT or "--time" in failure.reason:
            raise
        told = f"{failure.reason}; the whole had {seconds:g} seconds (--time): allow more"
        raise WorkerFailure(Outcome.TIMEOUT, told) from failure


def _chip(name: str) -> TpuChip:
    if name not in TPUS:
        raise unknown_chip(name)
    return TPUS[name]


def _check_mesh(mesh: Mesh | None, prepared: Prepared, model: Model) -> None:
    """Refuse a batch that a mesh cannot share out."""
    if mesh is None or mesh.data == 1:
        return
    if not model.signature.has_batch:
        raise UsageError(
            f"mesh (--mesh) shares a batch among data={mesh.data}, but the network takes calls of one shape only; give "
            "tensor alone, or a network that takes any number of samples"
        )
    if prepared.batch_size % mesh.data:
        raise UsageError(
            f"mesh (--mesh) shares a batch among data={mesh.data}, which does not divide the {prepared.batch_size} "
            "samples of the example; give an example of a multiple of that"
        )


@dataclasses.dataclass
class _Job:
    """One compilation: what is asked of the worker, and what it answered. `notes` are sentences for the reader."""

    prepared: Prepared
    chip: TpuChip
    topology: str
    mesh: Mesh | None
    folder: Path
    allowance: Allowance
    steps: Steps
    notes: list[str] = dataclasses.field(default_factory=list)

    def answers(self) -> Mapping[str, Any]:
        """All that the worker answers: "compared", "estimates" by products (empty without the compiler), "bfloat16",
        and of a mesh "splits" and "sharded"."""
        found: dict[str, Any] = {"estimates": {}, "bfloat16": None, "splits": [], "sharded": None}
        try:
            with Worker(self.folder / "log", environment=self._variables()) as worker:
                given = {"original": str(self.prepared.program), "folder": str(self.folder)}
                worker.open("vivace.api.silicon.tpu_worker:open_translator", given, seconds=self._left())
                self._prove(worker, found)
                with contextlib.suppress(WorkerFailure):  # noted: what was found so far is delivered
                    self._estimate(worker, found)
        except WorkerFailure as failure:
            if failure.outcome is Outcome.UNSUPPORTED:
                raise UnsupportedModel(failure.reason) from failure
            raise
        return found

    def _prove(self, worker: Worker, found: dict[str, Any]) -> None:
        """Translate, and compare on XLA's CPU back end. Raises ProofFailed where the answers are others."""
        size, referee, mesh = self.prepared.batch_size, self.prepared.referee, self.mesh or Mesh()
        exact = None if referee.exact is None else str(referee.exact)
        calls = str(self.prepared.confirm.calls)
        with self.steps.step("translation", "writing StableHLO"):
            layout = {"data": mesh.data, "tensor": mesh.tensor}
            worker.call("translate", {"size": size, **layout}, Phase.CONVERT, self._left())
        with self.steps.step("comparison", "running it on XLA's CPU back end beside the original"):
            asked: dict[str, Any] = {"calls": calls, "referee": str(referee.calls), "exact": exact}
            found["compared"] = _right(worker.call("compare", asked, Phase.VERIFY, self._left()))
        if self.mesh is not None:
            told = f"running it on {self.mesh.chips} devices of XLA's CPU back end"
            with self.steps.step("sharding", told if self.mesh.chips <= MOST_HOST_DEVICES else "running it sharded"):
                found["splits"] = worker.call("split", {"tensor": self.mesh.tensor}, Phase.VERIFY, self._left())
                asked = {"calls": calls, "size": size, **layout}
                found["sharded"] = _right(worker.call("compare_mesh", asked, Phase.VERIFY, self._left()))

    def _estimate(self, worker: Worker, found: dict[str, Any]) -> None:
        """What the compiler says, and how bfloat16 answers; what is not to be had is noted, and what time cut short
        is raised too, as the worker has ended then."""
        size, mesh = self.prepared.batch_size, self.mesh or Mesh()
        for products in ("float32", "bfloat16") if is_installed("libtpu") else ():
            asked = {
                "topology": self.topology, "chips": math.prod(map(int, self.topology.partition(":")[2].split("x"))),
                "config": self.chip.config, "size": size, "products": products, "data": mesh.data,
                "tensor": mesh.tensor,
            }  # fmt: skip
            with self.steps.step("compilation", f"compiling for {self._place()}, {products} products"):
                answer = self._asked(worker, "analyse", asked, Phase.COMPILE, f"{products} products")
                found["estimates"].update({products: answer})
        referee = self.prepared.referee
        with self.steps.step("bfloat16", "judging it in bfloat16 by float64"):
            exact = None if referee.exact is None else str(referee.exact)
            asked = {"size": size, "referee": str(referee.calls), "exact": exact}
            try:
                found["bfloat16"] = self._asked(worker, "compare_bfloat16", asked, Phase.VERIFY, "bfloat16")
            except WorkerFailure as failure:
                if failure.outcome is not Outcome.UNSUPPORTED:
                    raise

    def _asked(self, worker: Worker, method: str, asked: dict[str, Any], phase: Phase, what: str) -> Any:
        try:
            return worker.call(method, asked, phase, self._left())
        except WorkerFailure as failure:
            is_late = failure.outcome is Outcome.TIMEOUT
            self.notes.append(f"{what}: {'no time was left (--time)' if is_late else failure.reason}")
            raise

    def _left(self) -> float:
        return self.allowance.left(PUBLISHING)

    def _place(self) -> str:
        return self.chip.name if self.mesh is None else f"{self.mesh.chips} x {self.chip.name} ({self.topology})"

    def _variables(self) -> dict[str, str]:
        """The compiler's, and for a mesh as many devices of XLA's CPU back end."""
        if self.mesh is None:
            return dict(ahead.VARIABLES)
        count = min(self.mesh.chips, MOST_HOST_DEVICES)
        flags = f"{os.environ.get('XLA_FLAGS', '')} {ahead.HOST_DEVICES}={count}"
        return {**ahead.VARIABLES, "XLA_FLAGS": flags.strip()}


def _right(compared: dict[str, Any]) -> dict[str, Any]:
    """What a comparison found. Raises ProofFailed where the program answers otherwise than the original."""
    if compared["reason"]:
        raise ProofFailed(
            f"the StableHLO does not answer as the original: {compared['reason']}; this is a defect of Vivace, and "
            "nothing is kept"
        )
    return compared


def _told(answers: Mapping[str, Any], job: _Job, work: Workload) -> TpuCompilation:
    chip, prepared = job.chip, job.prepared
    estimates, notes, devices = [], [*prepared.notes, *job.notes], None
    for products, found in answers["estimates"].items():
        if "lacking" in found:
            notes.append(f"{products} products: {found['lacking']}")
            continue
        devices = found.pop("devices")
        collectives = tuple(Collective(**one) for one in found.pop("collectives"))
        estimates.append(TpuEstimate(products, **found, collectives=collectives))
    memory = device(chip.name).memory_bytes
    if devices is not None and devices > 1:
        notes.append(f"for the compiler a {chip.name} chip is {devices} devices; the figures are of one of them")
    held = None if memory is None else memory / (devices or 1)
    compared, bfloat16, sharded = answers["compared"], answers["bfloat16"], answers["sharded"]
    status = _status(answers["estimates"], estimates, held)
    if status is TpuStatus.WRITTEN and not is_installed("libtpu"):
        notes.append(f"the compiler libtpu is not installed; {INSTALL_COMPILER}")
    return TpuCompilation(
        work.name, chip.name, status, prepared.batch_size, compared["relative_error"], compared["calls"], held,
        devices, tuple(estimates), None if bfloat16 is None else Bfloat16Check(**bfloat16), job.mesh, job.topology,
        tuple(SplitWeight(one["name"], tuple(one["shape"]), one["dimension"]) for one in answers["splits"]),
        None if sharded is None else MeshCheck(sharded["devices"], sharded["relative_error"], sharded["compared"]),
        notes=tuple(notes), conditions=versions("torch", "jax", "jaxlib", "libtpu"),
    )  # fmt: skip


def _status(answered: Mapping[str, Any], estimates: Sequence[TpuEstimate], held: float | None) -> TpuStatus:
    if not answered:
        return TpuStatus.WRITTEN
    fits = len(estimates) == len(answered) and all(held is None or one.held_bytes <= held for one in estimates)
    return TpuStatus.COMPILED if fits else TpuStatus.TOO_LARGE


def _publish(result: TpuCompilation, prepared: Prepared, folder: Path, out: Path, limits: Limits) -> None:
    """Seal the program as an artifact, load it in a fresh process as a user would, and move it to its place."""
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    staged = Path(mkdtemp(prefix=f".{out.name}.", dir=out.absolute().parent)) / "artifact"
    try:
        save.stage_program(folder / "program", staged)
        variables = compiler_variables(folder)
        recorded = golden.record(staged, prepared.confirm_calls, Effect.ROUNDED, folder / "golden", variables, limits)
        save.seal(staged, _manifest(result, prepared, recorded, staged), {RESULTS: document_of(result).to_text()})
        check_in_worker(staged, folder / "check", variables, limits)
        save.publish(staged, out)
    finally:
        shutil.rmtree(staged.parent, ignore_errors=True)


def _manifest(result: TpuCompilation, prepared: Prepared, recorded: Golden, staged: Path) -> Manifest:
    model, plan = store.describe(staged / PROGRAM), Plan((Xla(),))
    return Manifest(
        vivace_version=version("vivace"),
        name=result.name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        status=result.status.value,
        plan=[PlanStep(**step) for step in plan.to_json()],
        plan_name=str(plan),
        form=model.form.value,
        executes_native_code=False,
        accepts=model.signature.describe_call(),
        proved_on_shapes=[[list(leaf.shape) for leaf in samples.read(prepared.confirm_calls)[0]]],
        machine=detect().to_json(),
        versions=dict(result.conditions),
        speed={},
        quality={"relative_error": result.relative_error, "calls": result.compared},
        golden=recorded,
        files={},
    )
