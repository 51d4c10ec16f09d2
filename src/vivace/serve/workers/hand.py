"""One worker as the front sees it: started in a thread that watches it, spoken to from the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vivace.core.errors import EnvironmentFault, VivaceError
from vivace.measure.process import STANDARD, Limits, Phase, Worker
from vivace.serve.workers.arena import Arena
from vivace.serve.workers.messages import LONGEST, Computed, Place, encode_inputs

ENTRY = "vivace.serve.workers.child:open_served"
ENDLESS = 1e9
"""Seconds that a worker may serve."""

OnReady = Callable[["Hand", Mapping[str, Any]], None]
OnComputed = Callable[["Hand", Computed], None]
OnEnded = Callable[["Hand", VivaceError | None], None]


class Hand:
    """A worker process with its socket and its two arenas. The callbacks are called in the event loop.

    `on_ready` comes once, with what the worker says of the artifact; `on_computed` after each `send`; `on_ended` once,
    last of all, with the error that ended it (None where it was told to end). It is then of no further use.
    """

    def __init__(
        self,
        folder: Path,
        arguments: Mapping[str, Any],
        on_ready: OnReady,
        on_computed: OnComputed,
        on_ended: OnEnded,
        environment: Mapping[str, str],
        limits: Limits = STANDARD,
    ) -> None:
        self.given = Arena.create()
        self.taken = Arena.create()
        self.pid: int | None = None
        self._folder = folder
        self._arguments = arguments
        self._environment = environment
        self._limits = limits
        self._on_ready, self._on_computed, self._on_ended = on_ready, on_computed, on_ended
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._live, name=f"worker {folder.name}", daemon=True)
        self._thread.start()

    def send(self, places: list[Place]) -> None:
        """Have it compute what lies in `given`. Raises OSError where it is gone; `on_ended` tells that too."""
        assert self._socket is not None
        self._socket.send(encode_inputs(places))

    def kill(self) -> None:
        """End it at once; `on_ended` follows."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Let it end after what it computes, or at once while it loads; `on_ended` follows."""
        self._closed = True
        if self._socket is None:
            self.kill()
        self._let_go()

    def join(self, seconds: float) -> None:
        """Wait until its process is gone."""
        self._thread.join(seconds)

    def _live(self) -> None:
        """The thread: start the worker, hand its socket to the loop, and watch it until it ends."""
        error: VivaceError | None = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with (
                self._listening() as listener,
                Worker(self._folder, self._limits, self._environment, [ENTRY.partition(":")[0]]) as worker,
            ):
                self.pid = worker.pid
                arguments = {**self._arguments, "socket": str(self._path)}
                opened = worker.open(ENTRY, arguments, phase=Phase.COMPILE)
                connected, _ = listener.accept()
                socket.send_fds(connected, [b"a"], [self.given.descriptor, self.taken.descriptor])
                self._post(self._take_over, connected, opened)
                worker.call("serve", phase=Phase.MEASURE, seconds=ENDLESS)
        except VivaceError as failure:
            error = failure
        except OSError as failure:
            error = EnvironmentFault(f"a worker could not be reached: {failure}")
        finally:
            self.pid = None  # the kernel may give it to another process
            self._post(self._end, error)

    @property
    def _path(self) -> Path:
        return self._folder / "socket"

    def _listening(self) -> socket.socket:
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(str(self._path))
        listener.listen(1)
        return listener

    def _post(self, call: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(call, *arguments)

    def _take_over(self, connected: socket.socket, opened: Mapping[str, Any]) -> None:
        if self._closed:
            connected.close()
            return
        connected.setblocking(False)
        self._socket = connected
        self._loop.add_reader(connected.fileno(), self._receive)
        self._on_ready(self, opened)

    def _receive(self) -> None:
        assert self._socket is not None
        try:
            message = self._socket.recv(LONGEST)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            self._let_go()  # it has died; the thread tells how
            return
        self.taken.follow()
        self._on_computed(self, Computed.decode(message))

    def _let_go(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _end(self, error: VivaceError | None) -> None:
        self._let_go()
        self.given.close()
        self.taken.close()
        self._on_ended(self, None if self._closed else error or EnvironmentFault("a worker ended by itself"))
