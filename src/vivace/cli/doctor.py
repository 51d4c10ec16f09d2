"""`vivace doctor`: what this machine is, what it can do, and which runtimes are there."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from typing import Annotated, Any

import typer

from vivace.cli.importing import broken_packages
from vivace.cli.options import Json, Quiet
from vivace.cli.output import document_only, emit_json, out_console, progress_shown
from vivace.core.errors import install_line
from vivace.core.machine import Machine


@dataclasses.dataclass(frozen=True)
class Runtime:
    """One package that runs or prepares programs, its version here (None when missing) and the extra that brings it.

    `broken` says why one that is there cannot be imported, and is empty where it can.
    """

    package: str
    does: str
    version: str | None
    extra: str
    broken: str = ""

    @property
    def install(self) -> str:
        """How to get it; empty when it is there and can be imported."""
        return install_line(self.extra) if self.extra and (self.broken or not self.version) else ""


RUNTIMES = (
    ("torch", "eager, torch.compile, AOTInductor", ""),
    ("onnxruntime", "runs ONNX programs", "onnx"),
    ("onnx", "reads and writes ONNX programs", "onnx"),
    ("onnxscript", "turns PyTorch programs into ONNX", "onnx"),
    ("openvino", "runs OpenVINO programs", "openvino"),
    ("nncf", "static int8 for OpenVINO", "openvino"),
    ("torchao", "int8 for PyTorch", "ao"),
    ("keras", "reads .keras models", "keras"),
    ("jax", "runs programs in XLA, on a TPU where there is one", "tpu"),
    ("qiskit-aer", "simulates quantum circuits", "quantum"),
    ("scikit-learn", "the digits of `vivace demo`", "demo"),
)


def doctor(
    measured: Annotated[
        bool,
        typer.Option(
            "--measure/--no-measure", help="Measure the ceilings of arithmetic and memory: about 3 s a thread count."
        ),
    ] = True,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show this machine: cores that the container allows, instruction sets, measured ceilings, runtimes.

    Examples:

      vivace doctor

      vivace doctor --no-measure --json
    """
    with document_only(as_json), progress_shown(quiet) as progress:
        if measured:
            progress.stage("measuring", "the ceilings of arithmetic and memory, about 3 s a thread count")
        machine = examine(measured)
        progress.stage("importing", "each runtime that is there, to see whether it works")
        runtimes = installed_runtimes()
    if as_json:
        emit_json(doctor_document(machine, runtimes))
    else:
        _print(machine, runtimes)


def examine(measured: bool) -> Machine:
    """The machine, with ceilings for one thread, for all allowed ones and for its first CUDA device when they are to be
    measured.

    Those are kept in the user's cache folder, where `optimize` finds them.
    """
    from vivace.devices.machine import detect

    machine = detect()
    if not measured:
        return machine
    from vivace.devices import ceiling_store, ceilings
    from vivace.measure.services import probe

    threads = sorted({1, machine.cores_allowed})
    found = ceilings.measure_ceilings(threads, probe.fastest_seconds)
    if machine.gpus:
        found = (*found, ceilings.measure_device_ceiling(probe.fastest_device_seconds))
    machine = dataclasses.replace(machine, ceilings=found)
    ceiling_store.keep(machine)
    return machine


def installed_runtimes() -> tuple[Runtime, ...]:
    """Every runtime that techniques may use: there, missing, or there and broken."""
    found = [Runtime(package, does, _version(package), extra) for package, does, extra in RUNTIMES]
    broken = broken_packages(_module(runtime.package) for runtime in found if runtime.version)
    return tuple(dataclasses.replace(runtime, broken=broken.get(_module(runtime.package), "")) for runtime in found)


def doctor_document(machine: Machine, runtimes: tuple[Runtime, ...]) -> dict[str, Any]:
    """What --json prints."""
    return {
        "schema_version": 1,
        "machine": machine.to_json(),
        "facts": sorted(fact.name for fact in machine.facts()),
        "runtimes": [{**dataclasses.asdict(runtime), "install": runtime.install} for runtime in runtimes],
        "python": platform.python_version(),
        "vivace": _version("vivace"),
    }


def _module(package: str) -> str:
    """What is imported of a package."""
    return {"scikit-learn": "sklearn", "qiskit-aer": "qiskit_aer"}.get(package, package)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _print(machine: Machine, runtimes: tuple[Runtime, ...]) -> None:
    from vivace.report.machine import machine_block, runtime_table
    from vivace.report.terminal import print_block

    console = out_console()
    print_block(console, machine_block(machine))
    rows = [(r.package, _state(r), "; ".join(filter(None, (r.broken, r.install))) or r.does) for r in runtimes]
    print_block(console, runtime_table(rows))


def _state(runtime: Runtime) -> str:
    if runtime.version is None:
        return "missing"
    return "broken" if runtime.broken else runtime.version
