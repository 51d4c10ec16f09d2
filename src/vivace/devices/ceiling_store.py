"""Ceilings that `vivace doctor` measured, kept in the user's cache folder: one file a machine and build of PyTorch."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vivace.core.documents import strict_json
from vivace.core.machine import Ceiling, Machine

SCHEMA = 1


def cache_folder() -> Path:
    """Where they are kept: below $XDG_CACHE_HOME, or ~/.cache (XDG Base Directory Specification 0.8)."""
    told = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(told) if told and Path(told).is_absolute() else Path.home() / ".cache"
    return base / "vivace" / "ceilings"


def keep(machine: Machine) -> bool:
    """Write the best of a machine's ceilings and those kept before, since a busy machine shows less of what it
    can do; whether it could be done (a folder that cannot be written is no error)."""
    best = best_of(kept(machine), machine.ceilings)
    note = {"schema": SCHEMA, "ceilings": [dataclasses.asdict(ceiling) for ceiling in best]}
    try:
        path = _file(machine)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as beside:
            beside.write(json.dumps(note))
        Path(beside.name).replace(path)
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        return False
    return True


def kept(machine: Machine) -> tuple[Ceiling, ...]:
    """The ceilings that were kept for this machine; none where there is no readable file."""
    try:
        with _file(machine).open("rb") as file:
            note = strict_json.load(file)
        if note["schema"] != SCHEMA:
            return ()
        return tuple(read_ceilings(note["ceilings"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RuntimeError):
        return ()


def best_of(some: Sequence[Ceiling], others: Sequence[Ceiling]) -> tuple[Ceiling, ...]:
    """For each device and count of threads the highest rates of either.

    >>> best_of([Ceiling(1, {"f32": 50.0}, 9.0)], [Ceiling(1, {"f32": 40.0, "int8": 90.0}, 11.0)])
    (Ceiling(threads=1, gflops={'f32': 50.0, 'int8': 90.0}, copy_gigabytes_per_second=11.0, device='cpu'),)
    """
    found: dict[tuple[str, int], Ceiling] = {}
    for one in (*some, *others):
        other = found.get((one.device, one.threads), one)
        names = dict.fromkeys((*other.gflops, *one.gflops))
        rates = {name: max(other.gflops.get(name, 0.0), one.gflops.get(name, 0.0)) for name in names}
        copied = max(one.copy_gigabytes_per_second, other.copy_gigabytes_per_second)
        found[one.device, one.threads] = Ceiling(one.threads, rates, copied, one.device)
    return tuple(found.values())


def read_ceilings(nodes: Sequence[dict[str, object]]) -> list[Ceiling]:
    """Ceilings from the fields of each. Raises TypeError, ValueError and the like for what is not numbers."""
    return [_ceiling(**node) for node in nodes]  # type: ignore[arg-type]


def _ceiling(threads: int, gflops: dict[str, float], copy_gigabytes_per_second: float, device: str = "cpu") -> Ceiling:
    rates = {str(name): float(rate) for name, rate in gflops.items()}
    if not all(0 < rate < math.inf for rate in (copy_gigabytes_per_second, *rates.values())):
        raise ValueError("a ceiling is above zero and finite")
    if device not in ("cpu", "cuda"):
        raise ValueError(f"a ceiling is of cpu or cuda, not of {device!r}")
    return Ceiling(int(threads), rates, float(copy_gigabytes_per_second), device)


def _file(machine: Machine) -> Path:
    return cache_folder() / f"{machine.fingerprint}-torch-{importlib.metadata.version('torch')}.json"
