"""What `vivace doctor` and `vivace techniques` print: machine, ceilings, runtimes, and the catalogue's status."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vivace.core.machine import Ceiling, Machine
from vivace.report.wording import show_bytes, show_place


def machine_block(machine: Machine) -> RenderableType:
    """The machine and its ceilings."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for name, value in _facts(machine):
        table.add_row(name, Text(value))
    return Group(table, Text(""), *_ceilings(machine.ceilings))


def runtime_table(rows: Sequence[tuple[str, str, str]]) -> RenderableType:
    """Package, version or "missing" or "broken", and what it does or how to install it."""
    table = Table("runtime", "version", "", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for package, version, note in rows:
        table.add_row(package, Text(version, "yellow" if version in ("missing", "broken") else ""), Text(note))
    return Group(Text(""), table)


def technique_table(family: str, rows: Sequence[tuple[str, str, str]]) -> RenderableType:
    """One family of the catalogue: name, stage, and status with its reason."""
    table = Table(f"{family}", "stage", "status here", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.columns[0].min_width, table.columns[1].min_width = 26, 9
    for name, stage, status in rows:
        table.add_row(name, stage, Text(status, "green" if status.startswith("available") else "yellow"))
    return Group(table, Text(""))


def _facts(machine: Machine) -> Iterator[tuple[str, str]]:
    yield "processor", f"{machine.processor} ({machine.architecture})"
    yield "cores", f"{machine.cores_allowed} allowed of {machine.cores_host}"
    yield "memory", f"{show_bytes(machine.memory_bytes)} allowed"
    yield "instructions", " ".join(machine.instructions) or "unknown"
    yield "system", machine.operating_system
    for gpu in machine.gpus:
        major, minor = gpu.compute_capability
        yield "GPU", f"{gpu.name}, {show_bytes(gpu.memory_bytes)}, compute capability {major}.{minor}"
    if not machine.gpus:
        yield "GPU", "none that PyTorch can use"
    if machine.tpus:
        yield "TPU", f"{len(machine.tpus)} x {machine.tpus[0].name}"
    yield "C++ compiler", machine.cxx_compiler or "missing (torch.compile needs one: install g++ or clang)"
    yield "fingerprint", machine.fingerprint


def _ceilings(ceilings: Sequence[Ceiling]) -> Iterator[RenderableType]:
    if not ceilings:
        yield Text("ceilings were not measured")
        return
    names = list(dict.fromkeys(name for ceiling in ceilings for name in ceiling.gflops))
    table = Table(
        "ceilings, MEASURED",
        *(f"{name} GFLOP/s" for name in names),
        "copy GB/s",
        box=None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
    )
    for ceiling in ceilings:
        rates = (f"{ceiling.gflops[name]:.0f}" if name in ceiling.gflops else "-" for name in names)
        table.add_row(show_place(ceiling), *rates, f"{ceiling.copy_gigabytes_per_second:.1f}")
    yield table
