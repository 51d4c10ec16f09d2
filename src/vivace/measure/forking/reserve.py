"""Interpreters that start ahead: what later claims need is imported while a core has nothing to do.

A confirmation takes several workers, each an interpreter of its own (see `client`), and each of them imports PyTorch
and the packages of the model for seconds before anything can be measured. Started early they sleep, stopped, until a
worker that asks for exactly them takes them over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar

from vivace.measure import memory, wire
from vivace.measure.child_environment import child_environment, surroundings
from vivace.measure.forking.child import Ends, Executed, executed, pipes, signal_group

MEMORY_SHARE = 1 / 8
"""Of the free memory that all of them may take up."""
SETTLED_SECONDS = 0.5
"""How long an interpreter runs before it is stopped, so that it is certain to end with its parent."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A worker that will be asked for: the variables that its environment has further, and what it imports."""

    variables: Mapping[str, str]
    preload: Sequence[str]


@dataclasses.dataclass
class Ahead:
    """An interpreter that has started, our ends of its pipes, and what it was started for."""

    child: Executed
    ends: Ends
    key: object
    started: float


class Reserve:
    """Starts the wanted interpreters one after another, in a thread that lives as long as they do."""

    def __init__(self, wanted: Sequence[Wanted]) -> None:
        self._wanted = list(wanted)
        self._ready: list[Ahead] = []
        self._starting: Ahead | None = None
        self._lock = threading.Lock()
        self._may_start = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vivace-reserve", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        """Start, then stay: the kernel ends children together with the thread that started them."""
        allowed = len(self._wanted)
        for number, wanted in enumerate(self._wanted):
            started = self._start(wanted) if number < allowed else None
            if started is None or not self._is_put_by(started):
                break
            if number == 0:
                size = memory.resident_bytes([started.child.pid])
                allowed = int(MEMORY_SHARE * memory.available_bytes() / max(size, 1))
        self._closing.wait()

    def _start(self, wanted: Wanted) -> Ahead | None:
        """Start one, as soon as that disturbs nobody; None where it cannot be, or no more are to be started."""
        environment = child_environment(wanted.variables)
        while self._may_start.wait():
            with self._lock:
                if self._closing.is_set():
                    return None
                if not self._may_start.is_set():
                    continue
                ours, theirs = pipes()
                try:
                    child = executed(environment, wanted.preload, theirs)
                except OSError:
                    ours.close()
                    return None
                finally:
                    theirs.close()
                key = _key(environment, wanted.preload)
                self._starting = Ahead(child, ours, key, time.monotonic())
                return self._starting
        return None

    def _is_put_by(self, ahead: Ahead) -> bool:
        """Wait until it has imported all, and stop it; False for one that has ended meanwhile."""
        with contextlib.suppress(OSError, EOFError, ValueError):
            wire.write_frame(ahead.ends.commands, {"do": "ready"})
            wire.read_frame(ahead.ends.answers)
            with self._lock:
                if not self._closing.is_set():
                    self._starting = None
                    signal_group(ahead.child.pid, signal.SIGSTOP)
                    self._ready.append(ahead)
                    return True
        with self._lock:
            self._starting = None
        _end(ahead)
        return False

    @contextlib.contextmanager
    def going(self) -> Iterator[None]:
        """Start the wanted ones meanwhile. One that has not imported all by then is stopped until the next time."""
        with self._lock:
            self._may_start.set()
            if self._starting is not None:
                signal_group(self._starting.child.pid, signal.SIGCONT)
        try:
            yield
        finally:
            with self._lock:
                self._may_start.clear()
                starting = self._starting
            if starting is not None:
                time.sleep(max(0.0, starting.started + SETTLED_SECONDS - time.monotonic()))
                with self._lock:
                    if starting is self._starting:
                        signal_group(starting.child.pid, signal.SIGSTOP)

    def ready(self, wanted: Wanted) -> int:
        """How many sleep that a worker of this kind can take."""
        key = _key(child_environment(wanted.variables), wanted.preload)
        with self._lock:
            return sum(one.key == key for one in self._ready)

    def take(self, environment: Mapping[str, str], preload: Sequence[str]) -> tuple[Executed, Ends] | None:
        """One that was started exactly so, awake; None where there is none."""
        key = _key(environment, preload)
        with self._lock:
            found = next((one for one in self._ready if one.key == key and not one.child.has_exited()), None)
            if found is None:
                return None
            self._ready.remove(found)
        signal_group(found.child.pid, signal.SIGCONT)
        return found.child, found.ends

    def close(self) -> None:
        """End all that nobody took."""
        with self._lock:
            self._closing.set()
            left, self._ready = self._ready, []
            if self._starting is not None:
                signal_group(self._starting.child.pid, signal.SIGKILL)
        self._may_start.set()
        for one in left:
            _end(one)
        self._thread.join()


_CURRENT: ContextVar[Reserve | None] = ContextVar("reserve", default=None)


@contextlib.contextmanager
def started(wanted: Sequence[Wanted]) -> Iterator[Reserve]:
    """A reserve that workers which start inside find by themselves. Empty where the kernel would not end what sleeps
    with its parent."""
    reserve = Reserve(wanted if sys.platform.startswith("linux") else ())
    token = _CURRENT.set(reserve)
    try:
        yield reserve
    finally:
        _CURRENT.reset(token)
        reserve.close()


def taken(environment: Mapping[str, str], preload: Sequence[str]) -> tuple[Executed, Ends] | None:
    """What a fresh worker finds in the reserve that it starts inside of; None where that has none for it."""
    reserve = _CURRENT.get()
    return None if reserve is None else reserve.take(environment, preload)


@contextlib.contextmanager
def going() -> Iterator[None]:
    """What the reserve has yet to start starts meanwhile: a core is left, and nothing is timed."""
    reserve = _CURRENT.get()
    with contextlib.nullcontext() if reserve is None else reserve.going():
        yield


def ready(wanted: Wanted) -> int:
    """How many workers of a kind the reserve has; none where there is no reserve."""
    reserve = _CURRENT.get()
    return 0 if reserve is None else reserve.ready(wanted)


def _key(environment: Mapping[str, str], preload: Sequence[str]) -> object:
    """All that an interpreter takes from its parent when it starts."""
    return dict(environment), tuple(preload), surroundings()


def _end(ahead: Ahead) -> None:
    """Kill it, reap it, and close the pipes."""
    signal_group(ahead.child.pid, signal.SIGKILL)
    ahead.child.wait()
    ahead.ends.close()
