"""A compiled step: its source as a library, its threads, and how it is called."""

from __future__ import annotations

import ctypes
import dataclasses
import weakref
from collections.abc import Sequence

from vivace.codegen.build import library
from vivace.codegen.team import enlist
from vivace.core.errors import NotApplicable


@dataclasses.dataclass(eq=False)
class Compiled:
    """A step that can be called. Its threads end with it."""

    library: ctypes.CDLL

    def __post_init__(self) -> None:
        self.library.begin.restype = ctypes.c_int
        self.library.run.restype = ctypes.c_int
        self.library.run.argtypes = [
            ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long,
            ctypes.c_void_p,
        ]  # fmt: skip
        if self.library.begin():
            raise NotApplicable("threads of a compiled step cannot be started")
        enlist(self.library)
        weakref.finalize(self, self.library.end)

    def run(
        self, tensors: int, numbers: int, rows: int | None, columns: int, keys: int | None, steps: int, losses: int
    ) -> bool:
        """Take steps: addresses of lists of pointers, of numbers, of the rows of tables (None: of a batch), of a key of
        each step (None: nothing is drawn). Whether every class and index of the data was there."""
        return not self.library.run(tensors, numbers, rows, columns, keys, steps, losses)


def compiled(source: str, compiler: str, flags: Sequence[str]) -> Compiled:
    """The source's `run`, ready. Raises NotApplicable where it cannot be compiled or loaded here."""
    return Compiled(library(source, compiler, flags))
