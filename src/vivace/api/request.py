"""What the caller asked for, checked: names, numbers, the device, the destination and the run's folder."""

from __future__ import annotations

import atexit
import dataclasses
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vivace.artifact import save
from vivace.core import registry
from vivace.core.errors import EnvironmentFault, UsageError, unknown_name
from vivace.core.machine import Machine
from vivace.core.quality import Budget, Gate
from vivace.core.technique import Technique
from vivace.core.workload import Objective, Workload
from vivace.devices.machine import detect
from vivace.measure.process import Limits
from vivace.report.duration import parse_duration
from vivace.search.journal import read_journal
from vivace.search.options import Options

DEVICES = ("cpu", "cuda", "auto")
SHORTEST_SECONDS = 10.0


def options_of(
    work: Workload,
    *,
    budget: Budget = Budget(),
    objective: str = "latency",
    time: str | float = "5m",
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    gate: str = "strict",
    extra: Mapping[str, Sequence[type[Technique]]] | None = None,
    exhaustive: bool = False,
    seed: int = 0,
    limits: Limits = Limits(),
) -> Options:
    """The rules of a search. Raises UsageError for what is not allowed, with what is."""
    if not isinstance(work, Workload):
        raise UsageError(f"work is a {type(work).__name__}; allowed is a vivace.Workload(model, inputs=...)")
    if not isinstance(budget, Budget):
        raise UsageError(f"budget is {budget!r}; allowed is a vivace.Budget, such as Budget(drop=0.01)")
    extra = extra or {}
    known = {**registry.techniques(), **{kind.name(): kind for kinds in extra.values() for kind in kinds}}
    for name in (*only, *without):
        if name not in known:
            raise unknown_name("technique", name, known)
    chosen = _choice(Gate, "gate", gate)
    return Options(
        budget=budget,
        gate=chosen,
        objective=_choice(Objective, "objective", objective),
        seconds=_seconds(time),
        metric=None if chosen is Gate.FIDELITY else work.metric,
        known=known,
        only=tuple(only),
        without=tuple(without),
        extra=tuple(extra),
        exhaustive=exhaustive,
        limits=limits,
        seed=seed,
    )


def _seconds(time: str | float) -> float:
    seconds = parse_duration(time)
    if not seconds >= SHORTEST_SECONDS:
        raise UsageError(
            f"time is {time}; allowed are {SHORTEST_SECONDS:g} seconds or more, since even the original "
            "takes that long to be measured"
        )
    return seconds


def _choice(kind: Any, label: str, value: Any) -> Any:
    value = getattr(value, "value", value)
    allowed = [member.value for member in kind]
    if value not in allowed:
        raise unknown_name(label, str(value), allowed)
    return kind(value)


def names_native(options: Options) -> bool:
    """Naming a technique of native code under `only` is the permission to use it."""
    return "aot-inductor" in options.only


def machine_of(device: str) -> Machine:
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


def destination_of(out: str | Path | None) -> Path:
    if out is not None:
        return Path(out)
    folder = Path(tempfile.mkdtemp(prefix="vivace-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder / "artifact"


@contextmanager
def run_folder(destination: Path, resume: bool) -> Iterator[Path]:
    """Where a run keeps its journal and programs, beside the artifact; kept when the run is stopped, gone when done."""
    folder = destination.absolute().parent / ".vivace" / destination.name
    with save.disk_errors(folder):
        if not resume:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    except BaseException:
        if not any(record["kind"] == "trial" for record in read_journal(folder / "journal.jsonl")):
            _remove(folder)
        raise
    _remove(folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.is_dir() and not any(folder.parent.iterdir()):
        folder.parent.rmdir()
