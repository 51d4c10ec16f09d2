"""Isolated workers, the parent's side: one process each, with deadlines, a memory limit and captured output.

The parent sleeps in poll(2) while a worker works. It wakes to take what the worker prints and, every POLL_SECONDS, to
read the resident size of the worker's processes from /proc (about 0.1 ms; finding new members of its session, a few
milliseconds, is left out while calls are timed). A worker is killed by the kernel when the thread that started it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vivace.core import errors
from vivace.core.errors import WorkerFailure
from vivace.core.measurement import Outcome
from vivace.measure import memory, wire
from vivace.measure.child_environment import child_environment
from vivace.measure.forking import client, reserve
from vivace.measure.forking.child import Child, Ends, executed, pipes, signal_group
from vivace.measure.log import CappedLog
from vivace.measure.waiting import STANDARD as STANDARD
from vivace.measure.waiting import Deadline, exit_descriptor, sleep_until_readable
from vivace.measure.waiting import Limits as Limits
from vivace.measure.waiting import Phase as Phase

POLL_SECONDS = 0.2
TERM_SECONDS = 2.0
STOP_SECONDS = 2.0
CLOSE_SECONDS = 5.0


class Worker:
    """One child process. Use it as a context manager: leaving it ends the child and everything that it started.

    `folder` receives worker.log. `environment` is added to the child's. The child imports the modules of `preload` at
    once, before anything is asked of it: start a worker early, and it is ready when it is needed. It is a `fresh`
    interpreter, which may have started ahead (`reserve`), or else a fork of one that has imported PyTorch, where that
    is possible. Every failure raises WorkerFailure with its Outcome, except errors about what the user gave, which are
    raised as in the parent; after a crash, a timeout or a kill the worker is gone.
    """

    def __init__(
        self,
        folder: Path,
        limits: Limits = STANDARD,
        environment: Mapping[str, str] | None = None,
        preload: Sequence[str] = (),
        fresh: bool = True,
    ) -> None:
        self.folder = folder
        self.limits = limits
        self.peak_bytes = 0
        self._memory_limit = limits.memory_bytes or int(memory.available_bytes() * memory.SPARE_SHARE)
        self._kernel_kills = memory.kernel_kills()
        self._members: list[int] = []
        self._members_found = 0.0
        self._buffer = bytearray()
        self._paused = False
        self._closed = False
        self._posted: Deadline | None = None
        self._start(child_environment(environment or {}), preload, fresh)

    def _start(self, environment: dict[str, str], preload: Sequence[str], fresh: bool) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._child, ours = (reserve.taken(environment, preload) if fresh else None) or _started(
                environment, preload, fresh
            )
        except OSError as error:
            raise WorkerFailure(Outcome.INFRA_ERROR, f"no worker process could be started: {error}") from error
        self._commands, self._answers, printed = ours.commands, ours.answers, ours.prints
        self._log = CappedLog(self.folder / "worker.log", printed, self.limits.log_bytes)
        self._finalizer = weakref.finalize(self, _end_group, self._child)
        os.set_blocking(self._commands, False)
        os.set_blocking(self._answers, False)
        self._exit = exit_descriptor(self.pid)

    @property
    def pid(self) -> int:
        """The child's process id, which is also its group's and its session's."""
        return self._child.pid

    @property
    def spared_seconds(self) -> float:
        """What a fresh interpreter would have taken longer to be ready for timing; 0 for one that is fresh."""
        return self._child.spared_seconds

    @property
    def reader_seconds(self) -> float:
        """What a fresh interpreter would have taken longer to read an exported program; 0 for one that is fresh."""
        return self._child.reader_seconds

    @property
    def shared_seconds(self) -> float:
        """What a fresh interpreter would have taken longer to import the packages of the model; 0 for one that is."""
        return self._child.shared_seconds

    def open(
        self,
        entry: str,
        arguments: Mapping[str, Any],
        payload: object | None = None,
        phase: Phase = Phase.LOAD,
        seconds: float | None = None,
    ) -> Any:
        """Import "module:function" in the child and call it with (arguments, payload); what it returns is the service.

        Returns the service itself when it is plain JSON, otherwise its attribute `opened`, or None. `seconds` takes
        the place of the phase's deadline. `payload` is cloudpickled over the private pipe.
        """
        self.post(entry, arguments, payload, phase, seconds)
        return self.opened()

    def post(
        self,
        entry: str,
        arguments: Mapping[str, Any],
        payload: object | None = None,
        phase: Phase = Phase.LOAD,
        seconds: float | None = None,
    ) -> None:
        """Ask as `open` does, and go on; `opened` waits for what it returns. Nothing else may be asked in between."""
        command = {"do": "open", "entry": entry, "arguments": dict(arguments), "payload": payload is not None}
        self._posted = self._ask(command, phase, seconds, payload)

    def opened(self) -> Any:
        """What opening the service that was posted returns, as `open` does."""
        if self._posted is None:
            raise WorkerFailure(Outcome.INFRA_ERROR, "nothing was posted to this worker")
        deadline, self._posted = self._posted, None
        return self._answer(deadline)

    def call(
        self,
        method: str,
        arguments: Mapping[str, Any] | None = None,
        phase: Phase = Phase.MEASURE,
        seconds: float | None = None,
    ) -> Any:
        """Call service.method(**arguments) in the child and return its JSON answer."""
        return self._exchange({"do": "call", "method": method, "arguments": dict(arguments or {})}, phase, seconds)

    def ready(self) -> None:
        """Wait until the child has imported its `preload`, so that it burns no core while others are timed."""
        self._exchange({"do": "ready"}, Phase.LOAD, None)

    def pause(self) -> None:
        """Stop every process of the worker's group, so that it uses no core whatever its threads wait like."""
        if not self._paused and not self._closed:
            self._signal(signal.SIGSTOP)
            self._paused = True
            self._wait_until(self._child.is_stopped, STOP_SECONDS)

    def resume(self) -> None:
        """Let a paused worker go on."""
        if self._paused:
            self._signal(signal.SIGCONT)
            self._paused = False

    def log_tail(self) -> str:
        """The last of what the child printed, on either stream."""
        if not self._closed:
            self._log.drain()
        return self._log.tail()

    @property
    def alive(self) -> bool:
        """Whether the child still runs (or is paused)."""
        return not self._closed and not self._child.has_exited()

    def close(self) -> None:
        """Ask the child to leave, wait CLOSE_SECONDS at most, then end it and all that it started. Never raises."""
        if self._closed:
            return
        self.resume()
        with contextlib.suppress(WorkerFailure, OSError):
            self._send({"do": "close"}, None, Deadline(Phase.MEASURE, CLOSE_SECONDS))
            self._wait_for_exit(CLOSE_SECONDS)
        self.abandon()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()

    def _exchange(
        self, command: dict[str, Any], phase: Phase, seconds: float | None, payload: object | None = None
    ) -> Any:
        return self._answer(self._ask(command, phase, seconds, payload))

    def _ask(self, command: dict[str, Any], phase: Phase, seconds: float | None, payload: object | None) -> Deadline:
        if self._closed:
            raise WorkerFailure(Outcome.INFRA_ERROR, "this worker has ended; start another")
        deadline = Deadline(phase, self.limits.seconds(phase) if seconds is None else seconds)
        self.resume()
        try:
            self._send(command, payload, deadline)
        except BaseException:
            self.abandon()
            raise
        return deadline

    def _answer(self, deadline: Deadline) -> Any:
        if self._closed:
            raise WorkerFailure(Outcome.INFRA_ERROR, "this worker has ended; start another")
        try:
            answer = self._receive(deadline)
        except BaseException:
            self.abandon()
            raise
        if "error" in answer:
            raise _as_error(answer["error"], deadline.phase)
        return answer["result"]

    def _send(self, command: dict[str, Any], payload: object | None, deadline: Deadline) -> None:
        self._write(memoryview(wire.encode(command)), deadline)
        if payload is not None:
            from vivace.measure import parcel  # imports torch: only for those who need it

            parcel.send(payload, lambda data: self._write(data, deadline))

    def _write(self, data: memoryview, deadline: Deadline) -> None:
        while data:
            try:
                data = data[os.write(self._commands, data) :]
            except BlockingIOError:
                self._wait(self._commands, select.POLLOUT, deadline)
            except BrokenPipeError:
                self._wait_for_exit(TERM_SECONDS)
                raise self._death(deadline.phase) from None

    def _receive(self, deadline: Deadline) -> dict[str, Any]:
        size = wire.length_of(self._read(wire.LENGTH.size, deadline))
        answer = json.loads(self._read(size, deadline))
        if not isinstance(answer, dict):
            raise WorkerFailure(Outcome.INFRA_ERROR, "the worker's answer is not a JSON object")
        return answer

    def _read(self, size: int, deadline: Deadline) -> bytes:
        while len(self._buffer) < size:
            try:
                part = os.read(self._answers, wire.CHUNK_BYTES)
            except BlockingIOError:
                if self._wait(self._answers, select.POLLIN, deadline):
                    continue
                part = b""
            if not part:
                self._wait_for_exit(TERM_SECONDS)
                raise self._death(deadline.phase)
            self._buffer += part
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _wait(self, descriptor: int, event: int, deadline: Deadline) -> bool:
        """Sleep until the descriptor is ready (True) or the child is gone (False); raise at a limit."""
        poller = select.poll()
        poller.register(descriptor, event)
        poller.register(self._log.descriptor, select.POLLIN)
        if self._exit is not None:
            poller.register(self._exit, select.POLLIN)
        while True:
            ready = dict(poller.poll(1000 * max(0.0, min(POLL_SECONDS, deadline.left()))))
            if self._log.descriptor in ready and not self._log.drain():
                poller.unregister(self._log.descriptor)
            if descriptor in ready:
                return True
            if self._exit in ready or (self._exit is None and self._child.has_exited()):
                return False
            if deadline.left() <= 0:
                raise WorkerFailure(Outcome.TIMEOUT, f"{deadline.phase.value} took longer than {deadline.seconds:g} "
                                    f"seconds{self._said()}")  # fmt: skip
            self._check_memory(deadline.phase)

    def _check_memory(self, phase: Phase) -> None:
        now = time.monotonic()
        if not self._members or (phase is not Phase.MEASURE and now - self._members_found > 2 * POLL_SECONDS):
            self._members = memory.session_members(self.pid)
            self._members_found = now
        held = memory.resident_bytes(self._members)
        self.peak_bytes = max(self.peak_bytes, held)
        if held > self._memory_limit:
            raise WorkerFailure(Outcome.OOM, f"{phase.value} held {held / 1e9:.2f} GB; allowed are "
                                f"{self._memory_limit / 1e9:.2f} GB")  # fmt: skip

    def _death(self, phase: Phase) -> WorkerFailure:
        """What to say of a child that ended by itself. What it started goes with it."""
        self._signal(signal.SIGKILL)
        code = self._child.wait()
        if code is None:
            told = f"the worker was ended in {phase.value}, along with the process that it was forked from"
            return WorkerFailure(Outcome.INFRA_ERROR, told)
        if code == -signal.SIGKILL and memory.kernel_kills() > self._kernel_kills:
            return WorkerFailure(Outcome.OOM, f"the kernel killed the worker in {phase.value} for lack of memory")
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        return WorkerFailure(Outcome.CRASHED, f"the worker {how} in {phase.value}{self._said()}")

    def _said(self) -> str:
        tail = self.log_tail().strip()
        return f"; its last words: {tail}" if tail else ""

    def _wait_until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Sleep in short steps until the condition holds or time is up."""
        deadline = Deadline(Phase.MEASURE, seconds)
        while not condition() and deadline.left() > 0:
            time.sleep(0.001)

    def _wait_for_exit(self, seconds: float) -> None:
        """Sleep until the child is gone, taking what it still prints."""
        deadline = Deadline(Phase.MEASURE, seconds)
        while not self._child.has_exited() and deadline.left() > 0:
            self._log.drain()
            sleep_until_readable(self._exit, max(0.0, min(0.02, deadline.left())))

    def _signal(self, number: int) -> None:
        signal_group(self.pid, number)

    def abandon(self) -> None:
        """End the worker now: SIGTERM to the group, a moment, SIGKILL; reap; release descriptors. Never raises."""
        if self._closed:
            return
        self._closed = True
        self._signal(signal.SIGCONT)
        if not self._child.has_exited():
            self._signal(signal.SIGTERM)
            self._wait_for_exit(TERM_SECONDS)
        self._finalizer()
        self._wait_until(lambda: not memory.session_members(self.pid), STOP_SECONDS)  # so that their memory is free
        self._log.close()
        for descriptor in (self._commands, self._answers, self._exit):
            if descriptor is not None:
                os.close(descriptor)


def _started(environment: Mapping[str, str], preload: Sequence[str], fresh: bool) -> tuple[Child, Ends]:
    """A child, forked unless it is to be fresh, and our ends of its pipes. Raises OSError where none can be started."""
    ours, theirs = pipes()
    try:
        forked = None if fresh else client.forked(environment, preload, theirs)
        return forked or executed(environment, preload, theirs), ours
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()


def _end_group(child: Child) -> None:
    """Kill what is left of the group, then reap its leader; also runs when the interpreter exits."""
    if child.returncode is None:
        signal_group(child.pid, signal.SIGKILL)
    child.wait()


def _as_error(error: Mapping[str, str], phase: Phase) -> errors.VivaceError:
    """The exception for what a child reported."""
    if "raise" in error:
        kind: type[errors.VivaceError] = getattr(errors, error["raise"])
        return kind(error["reason"])
    if error["outcome"]:
        return WorkerFailure(Outcome(error["outcome"]), error["reason"])
    building = phase in (Phase.CONVERT, Phase.COMPILE)
    return WorkerFailure(Outcome.CONVERT_FAILED if building else Outcome.CRASHED, error["reason"])
