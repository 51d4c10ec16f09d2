"""Compiles the source of a step and loads it into this process; nothing of it stays on the disk."""

from __future__ import annotations

import ctypes
import dataclasses
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

from vivace.core.errors import NotApplicable

FLAGS = (
    "-x", "c++", "-std=c++17", "-O2", "-shared", "-fPIC", "-fno-exceptions", "-fno-rtti", "-fno-math-errno",
    "-fno-trapping-math", "-ffp-contract=fast", "-fopenmp-simd", "-pthread", "-w",
)  # fmt: skip
PATIENCE_SECONDS = 120


@dataclasses.dataclass(eq=False)
class Compiled:
    """A step that can be called. Its threads end with it."""

    library: ctypes.CDLL

    def __post_init__(self) -> None:
        self.library.begin.restype = ctypes.c_int
        self.library.run.restype = ctypes.c_int
        self.library.run.argtypes = [
            ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long, ctypes.c_void_p
        ]  # fmt: skip
        if self.library.begin():
            raise NotApplicable("threads of a compiled step cannot be started")
        weakref.finalize(self, self.library.end)

    def run(self, tensors: int, numbers: int, rows: int | None, columns: int, steps: int, losses: int) -> bool:
        """Take steps: addresses of lists of pointers, of numbers, of the rows of tables (None: of a batch). Whether
        every class and index of the data was there."""
        return not self.library.run(tensors, numbers, rows, columns, steps, losses)


def compiled(source: str, compiler: str, flags: Sequence[str]) -> Compiled:
    """The source's `run`, ready. Raises NotApplicable where it cannot be compiled or loaded here."""
    with tempfile.TemporaryDirectory(prefix="vivace-") as name:
        file, library = Path(name) / "step.cpp", Path(name) / "step.so"
        file.write_text(source, encoding="utf-8")
        command = [compiler, *FLAGS, *flags, str(file), "-o", str(library), "-lm"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotApplicable(f"the compiler {compiler} cannot be run: {error}") from error
        if done.returncode:
            told = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
            raise NotApplicable(f"the compiler {compiler} fails: {told}")
        try:
            return Compiled(ctypes.CDLL(str(library)))
        except OSError as error:
            raise NotApplicable(f"what was compiled cannot be loaded: {error}") from error


def flags_for(architecture: str, lanes: int) -> list[str]:
    """What the compiler is told of the processor."""
    native = "-mcpu=native" if architecture in ("aarch64", "arm64") else "-march=native"
    return [native, *(["-mprefer-vector-width=512"] if lanes == 16 else [])]
