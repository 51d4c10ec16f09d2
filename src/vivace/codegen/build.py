"""Compiles generated source and loads it into this process; nothing of it stays on the disk, unless a search asks."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vivace.core.errors import NotApplicable

FLAGS = (
    "-x", "c++", "-std=c++17", "-O2", "-shared", "-fPIC", "-fno-exceptions", "-fno-rtti", "-fno-math-errno",
    "-fno-trapping-math", "-fno-strict-aliasing", "-ffp-contract=fast", "-fopenmp-simd", "-pthread", "-w",
)  # fmt: skip
PATIENCE_SECONDS = 120
LIBRARIES = "VIVACE_LIBRARIES"
"""The environment variable of a search's own folder, in which its workers keep what they compiled for each other."""


def library(source: str, compiler: str, flags: Sequence[str]) -> ctypes.CDLL:
    """The source as a library of this process. Raises NotApplicable where it cannot be compiled or loaded here."""
    with tempfile.TemporaryDirectory(prefix="vivace-") as name:
        shared = Path(name) / "program.so"
        here = platform.node()  # what `native` means is another thing elsewhere
        kept = _kept("\0".join([here, compiler, *FLAGS, *flags, source]))
        if kept is None or not _copied(kept, shared):
            _compile(source, compiler, flags, shared)
            if kept is not None:
                _copied(shared, kept)
        try:
            return ctypes.CDLL(str(shared))
        except OSError as error:
            raise NotApplicable(f"what was compiled cannot be loaded: {error}") from error


def _compile(source: str, compiler: str, flags: Sequence[str], to: Path) -> None:
    file = to.with_suffix(".cpp")
    file.write_text(source, encoding="utf-8")
    command = [compiler, *FLAGS, *flags, str(file), "-o", str(to), "-lm"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotApplicable(f"the compiler {compiler} cannot be run: {error}") from error
    if done.returncode:
        told = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
        raise NotApplicable(
            f"the compiler {compiler} fails: {told or f'it ends with {done.returncode} and says nothing'}"
        )


def _kept(key: str) -> Path | None:
    """Where the library of this key is kept, or will be; None where nothing is."""
    folder = os.environ.get(LIBRARIES)
    return None if not folder else Path(folder) / f"{hashlib.sha256(key.encode()).hexdigest()}.so"


def _copied(source: Path, to: Path) -> bool:
    """Whether a library could be copied, whole or not at all. Loaded from one file twice, it would be one library, with
    the memory of one program."""
    made = to.with_name(f"{to.name}.{os.getpid()}")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        made.write_bytes(source.read_bytes())
        made.replace(to)
    except OSError:  # it is not there, or the disk is full: it is compiled
        with contextlib.suppress(OSError):
            made.unlink()
        return False
    return True


def flags_for(architecture: str, lanes: int) -> list[str]:
    """What the compiler is told of the processor."""
    if architecture in ("aarch64", "arm64"):
        return ["-mcpu=native"]
    return ["-march=native", *(["-mprefer-vector-width=512"] if lanes == 16 else [])]
