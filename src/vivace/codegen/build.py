"""Compiles generated source and loads it into this process; nothing of it stays on the disk."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vivace.core.errors import NotApplicable

FLAGS = (
    "-x", "c++", "-std=c++17", "-O2", "-shared", "-fPIC", "-fno-exceptions", "-fno-rtti", "-fno-math-errno",
    "-fno-trapping-math", "-ffp-contract=fast", "-fopenmp-simd", "-pthread", "-w",
)  # fmt: skip
PATIENCE_SECONDS = 120


def library(source: str, compiler: str, flags: Sequence[str]) -> ctypes.CDLL:
    """The source as a library of this process. Raises NotApplicable where it cannot be compiled or loaded here."""
    with tempfile.TemporaryDirectory(prefix="vivace-") as name:
        file, shared = Path(name) / "program.cpp", Path(name) / "program.so"
        file.write_text(source, encoding="utf-8")
        command = [compiler, *FLAGS, *flags, str(file), "-o", str(shared), "-lm"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotApplicable(f"the compiler {compiler} cannot be run: {error}") from error
        if done.returncode:
            told = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
            raise NotApplicable(f"the compiler {compiler} fails: {told}")
        try:
            return ctypes.CDLL(str(shared))
        except OSError as error:
            raise NotApplicable(f"what was compiled cannot be loaded: {error}") from error


def flags_for(architecture: str, lanes: int) -> list[str]:
    """What the compiler is told of the processor."""
    native = "-mcpu=native" if architecture in ("aarch64", "arm64") else "-march=native"
    return [native, *(["-mprefer-vector-width=512"] if lanes == 16 else [])]
