"""`vv.synthesize` for a TPU: StableHLO that is compared with the original, and Google's compiler asked about it."""

from __future__ import annotations

import dataclasses
import datetime
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from vivace.api.silicon.publish import versions
from vivace.api.silicon.steps import Steps
from vivace.artifact import golden, save
from vivace.artifact.load import check_in_worker
from vivace.artifact.manifest import PROGRAM, Golden, Manifest, PlanStep
from vivace.core.errors import ProofFailed, UnsupportedModel, UsageError, WorkerFailure, unknown_name
from vivace.core.measurement import Outcome
from vivace.core.plan import Plan
from vivace.core.program import Form
from vivace.core.registry import is_installed
from vivace.core.technique import Effect
from vivace.core.workload import Workload
from vivace.data import samples
from vivace.devices.catalog import device
from vivace.devices.machine import detect
from vivace.hardware.chip.parts import PARTS
from vivace.hardware.chip.tpus import TPUS, TpuChip
from vivace.hardware.compiled import TpuCompilation, TpuEstimate, TpuStatus
from vivace.measure.process import Phase, Worker
from vivace.report.duration import parse_duration
from vivace.report.progress import Progress, SilentProgress
from vivace.report.results import RESULTS
from vivace.report.silicon.tpu import document_of
from vivace.runtimes import store
from vivace.runtimes.xla import ahead, stablehlo
from vivace.search.laboratory import compiler_variables
from vivace.search.prepare import Prepared, prepare
from vivace.techniques.compile.xla import Xla

PREFIX = "tpu"
"""Of the names of chips that are compiled for here."""
INSTALL_COMPILER = "install Google's compiler, which comes under its own terms: pip install 'jax[tpu]'"


def compile_for_tpu(
    work: Workload, chip: str, out: Path, time: str | float, progress: Progress | None = None
) -> TpuCompilation:
    """Translate a network to StableHLO, compare it with the original, and compile it for a TPU that is not there.

    What the compiler says is PREDICTED: memory by kind, operations, bytes, and its own estimate of the time, for
    float32 matrices multiplied as such and in one pass of bfloat16. Without the compiler the StableHLO alone is
    written. Raises UsageError, UnsupportedModel for a network without a translation, ProofFailed where it differs from
    the original, MissingExtra without JAX, WorkerFailure.
    """
    found = _chip(chip)
    if not isinstance(work, Workload):
        raise UsageError(f"work is a {type(work).__name__}; allowed is a vivace.Workload(model, inputs=...)")
    seconds = parse_duration(time)
    save.check_destination(out)
    stablehlo.require_jax()
    steps = Steps(progress or SilentProgress())
    with TemporaryDirectory(prefix="vivace-") as name, save.disk_errors(Path(name)):
        folder = Path(name)
        with steps.step("capture", f"capturing {work.name}"):
            prepared = prepare(work, folder / "work", seconds=seconds)
        model = store.describe(prepared.program)
        if model.form is not Form.TORCH:
            raise UnsupportedModel(
                f"{work.name} is a model of form {model.form.value}; give a PyTorch module or a .pt2"
            )
        result = _told(_asked(prepared, found, folder, seconds, steps), work, found, prepared)
        with steps.step("artifact", f"proving it as an artifact at {out}"):
            result = dataclasses.replace(result, out=out, seconds=steps.seconds)
            _publish(result, prepared, folder, out)
    return result


def _chip(name: str) -> TpuChip:
    if name not in TPUS:
        raise unknown_name("chip", name, [*TPUS, *PARTS])
    return TPUS[name]


def _asked(prepared: Prepared, chip: TpuChip, folder: Path, seconds: float, steps: Steps) -> Mapping[str, Any]:
    """All that a worker answers: "compared", and "estimates" by products, empty without the compiler."""
    size = prepared.batch_size
    answers: dict[str, Any] = {"estimates": {}}
    try:
        with Worker(folder / "log", environment=ahead.VARIABLES) as worker:
            given = {"original": str(prepared.program), "folder": str(folder)}
            worker.open("vivace.api.silicon.tpu_worker:open_translator", given)
            with steps.step("translation", "writing StableHLO"):
                worker.call("translate", {"size": size}, Phase.CONVERT, seconds)
            with steps.step("comparison", "running it on XLA's CPU back end beside the original"):
                compared = worker.call("compare", {"calls": str(prepared.confirm.calls)}, Phase.VERIFY, seconds)
            answers["compared"] = compared
            for products in ("float32", "bfloat16") if is_installed("libtpu") else ():
                with steps.step("compilation", f"compiling for {chip.name}, {products} products"):
                    asked = {"topology": chip.topology, "chips": chip.chips, "size": size, "products": products}
                    answers["estimates"][products] = worker.call("analyse", asked, Phase.COMPILE, seconds)
    except WorkerFailure as failure:
        if failure.outcome is Outcome.UNSUPPORTED:
            raise UnsupportedModel(failure.reason) from failure
        raise
    if not compared["agrees"]:
        raise ProofFailed(
            f"the StableHLO differs from the original by {compared['relative_error']:.2g} of the largest answer, more "
            "than rounding does; this is a defect of Vivace, and nothing is kept"
        )
    return answers


def _told(answers: Mapping[str, Any], work: Workload, chip: TpuChip, prepared: Prepared) -> TpuCompilation:
    estimates, notes, devices = [], list(prepared.notes), None
    for products, found in answers["estimates"].items():
        if "lacking" in found:
            notes.append(f"{products} products: {found['lacking']}")
            continue
        devices = found["devices"]
        estimates.append(TpuEstimate(products, **{key: value for key, value in found.items() if key != "devices"}))
    memory = device(chip.name).memory_bytes
    if devices is not None and devices > 1:
        notes.append(f"for the compiler a {chip.name} chip is {devices} devices; the figures are of one of them")
    held = None if memory is None else memory / (devices or 1)
    if not answers["estimates"]:
        status = TpuStatus.WRITTEN
        notes.append(f"the compiler libtpu is not installed; {INSTALL_COMPILER}")
    else:
        fits = len(estimates) == len(answers["estimates"])
        fits = fits and all(held is None or one.held_bytes <= held for one in estimates)
        status = TpuStatus.COMPILED if fits else TpuStatus.TOO_LARGE
    compared = answers["compared"]
    return TpuCompilation(
        work.name, chip.name, status, prepared.batch_size, compared["relative_error"], compared["calls"], held,
        devices, tuple(estimates), notes=tuple(notes), conditions=versions("torch", "jax", "jaxlib", "libtpu"),
    )  # fmt: skip


def _publish(result: TpuCompilation, prepared: Prepared, folder: Path, out: Path) -> None:
    """Seal the program as an artifact, load it in a fresh process as a user would, and move it to its place."""
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    staged = Path(mkdtemp(prefix=f".{out.name}.", dir=out.absolute().parent)) / "artifact"
    try:
        save.stage_program(folder / "program", staged)
        variables = compiler_variables(folder)
        recorded = golden.record(staged, prepared.confirm_calls, Effect.ROUNDED, folder / "golden", variables)
        save.seal(staged, _manifest(result, prepared, recorded, staged), {RESULTS: document_of(result).to_text()})
        check_in_worker(staged, folder / "check", variables)
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
