"""How long a phase of a worker may take, and sleeping until a process ends, by its descriptor where there is one."""

from __future__ import annotations

import dataclasses
import os
import select
import time
from enum import Enum


class Phase(Enum):
    """What a worker is doing; each has its own deadline."""

    LOAD = "load"
    CONVERT = "convert"
    COMPILE = "compile"
    FIRST_CALL = "first_call"
    VERIFY = "verify"
    MEASURE = "measure"


@dataclasses.dataclass(frozen=True)
class Limits:
    """Deadlines in seconds, by phase; bytes for a worker with all its children, and of what it prints.

    `memory_bytes` None allows nine tenths of what the machine or its container has free when the worker starts.
    """

    load: float = 120
    convert: float = 180
    compile: float = 300
    first_call: float = 60
    verify: float = 300
    measure: float = 300
    memory_bytes: int | None = None
    log_bytes: int = 1_000_000

    def within(self, seconds: float) -> Limits:
        """The same, with no deadline longer than `seconds`."""
        shorter = {phase.value: min(self.seconds(phase), seconds) for phase in Phase}
        return dataclasses.replace(self, **shorter)  # type: ignore[arg-type]

    def seconds(self, phase: Phase) -> float:
        """The deadline of one phase.

        >>> Limits(compile=20).seconds(Phase.COMPILE)
        20.0
        """
        return float(getattr(self, phase.value))


STANDARD = Limits()


class Deadline:
    """A moment by which a phase must be over."""

    def __init__(self, phase: Phase, seconds: float) -> None:
        self.phase = phase
        self.seconds = seconds
        self._until = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds that are left; negative when it has passed."""
        return self._until - time.monotonic()


def exit_descriptor(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends; None where the kernel or a sandbox has none."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def sleep_until_readable(descriptor: int | None, seconds: float) -> None:
    """Sleep until the descriptor is readable, at most this long; only sleep when there is none."""
    poller = select.poll()
    if descriptor is not None:
        poller.register(descriptor, select.POLLIN)
    poller.poll(1000 * seconds)
