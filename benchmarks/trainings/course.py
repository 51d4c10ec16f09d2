"""How a training went: seconds of each epoch without its evaluation, and the score after it. Needs only Python."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path


@dataclasses.dataclass
class Course:
    """Kept while an arm trains. `prepare_seconds` is what came before the first step, data files read included."""

    prepare_seconds: float = 0.0
    epoch_seconds: list[float] = dataclasses.field(default_factory=list)
    scores: list[float] = dataclasses.field(default_factory=list)

    def timed(self, epoch: Callable[[], object], finish: Callable[[], object] = lambda: None) -> None:
        """Run one epoch, and wait for what it left to a device (`finish`)."""
        began = time.perf_counter()
        epoch()
        finish()
        self.epoch_seconds.append(time.perf_counter() - began)

    def document(self) -> dict[str, object]:
        """As JSON, with the most memory that this process held so far."""
        return {**dataclasses.asdict(self), "peak_bytes": peak_bytes()}


def peak_bytes() -> int:
    """From /proc: getrusage has what the process that started this one held (Linux, proc(5), VmHWM)."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
