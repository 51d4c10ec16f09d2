"""What a parent holds of a worker's process: its number, what state it is in, and how it ended."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol


@dataclasses.dataclass(frozen=True)
class Ends:
    """One side's ends of the three pipes between a parent and its worker: descriptors of its commands, its answers and
    what it prints."""

    commands: int
    answers: int
    prints: int

    def close(self) -> None:
        """Close all three."""
        for descriptor in dataclasses.astuple(self):
            os.close(descriptor)


def pipes() -> tuple[Ends, Ends]:
    """The parent's ends and the child's."""
    (child_reads, commands), (answers, child_writes), (printed, child_prints) = os.pipe(), os.pipe(), os.pipe()
    return Ends(commands, answers, printed), Ends(child_reads, child_writes, child_prints)


class Child(Protocol):
    """A process that was started for a worker. It leads a session of its own, and is reaped only by `wait`."""

    @property
    def pid(self) -> int:
        """Its number, which is also its group's and its session's."""
        ...

    @property
    def returncode(self) -> int | None:
        """None until it was reaped."""
        ...

    @property
    def spared_seconds(self) -> float:
        """What importing the modules of an arm would have taken, had they not been imported before."""
        ...

    @property
    def reader_seconds(self) -> float:
        """The same of what PyTorch reads an exported program with, which only an arm that opens one imports."""
        ...

    @property
    def shared_seconds(self) -> float:
        """The same of the packages that were named for it to import ahead."""
        ...

    def wait(self) -> int | None:
        """Sleep until it has ended, reap it, and return its exit code, or the signal's number, negative; None where it
        was ended along with the process that it was forked from."""
        ...

    def has_exited(self) -> bool:
        """Whether it has ended. It is not reaped, so that its number, and its group's, stay its own."""
        ...

    def is_stopped(self) -> bool:
        """Whether it is stopped, or has ended."""
        ...


class Executed:
    """A child of this process, in a new interpreter. Raises OSError where none can be started."""

    spared_seconds = reader_seconds = shared_seconds = 0.0

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], prints: int, inherited: Sequence[int]
    ) -> None:
        self._child = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=prints, stderr=prints, pass_fds=tuple(inherited),
            env=dict(environment), start_new_session=True,
        )  # fmt: skip
        self.pid = self._child.pid

    @property
    def returncode(self) -> int | None:
        """None until it was reaped."""
        return self._child.returncode

    def wait(self) -> int:
        """Sleep until it has ended, and reap it."""
        return self._child.wait()

    def has_exited(self) -> bool:
        """Whether it has ended."""
        return self.returncode is not None or self._has_state(os.WEXITED)

    def is_stopped(self) -> bool:
        """Whether it is stopped, or has ended."""
        return self.returncode is not None or self._has_state(os.WSTOPPED | os.WEXITED)

    def _has_state(self, states: int) -> bool:
        try:
            return os.waitid(os.P_PID, self.pid, states | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True


def signal_group(pid: int, number: int) -> None:
    """Send a signal to a child and all that it started, if any of them is there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def executed(environment: Mapping[str, str], preload: Sequence[str], theirs: Ends) -> Executed:
    """A worker in a new interpreter, which imports `preload` at once. Raises OSError where none can be started."""
    spoken = (theirs.commands, theirs.answers)
    command = [sys.executable, "-P", "-m", "vivace.measure.worker", *map(str, spoken), str(os.getpid()), *preload]
    return Executed(command, environment, theirs.prints, spoken)
