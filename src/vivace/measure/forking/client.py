"""Having a worker forked: the parent's side of the fork server, one for each process that asks.

An interpreter with PyTorch takes seconds to start, a fork of one that has it milliseconds. Where a claim is made the
worker is an interpreter of its own all the same: processes that are forked from one share how their memory is laid out,
and this is one of the things that differ between two runs of a user's.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vivace.measure.child_environment import child_environment, surroundings
from vivace.measure.forking.child import Child, Ends
from vivace.measure.forking.server import LARGEST_MESSAGE

ARM = ("vivace.measure.arm", "vivace.runtimes.store", "vivace.data.samples")
READER = ("torch.export.pt2_archive",)
OTHERS = ("vivace.search.build", "vivace.search.inspection", "torch._dynamo")
"""What the server imports: PyTorch and what an arm needs, then what PyTorch reads an exported program with, which
imports its compiler, then what other workers need. None of it starts a thread."""
READ_AT_START = (
    "LD_", "MALLOC_", "GLIBC_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_", "TORCH", "PYTORCH", "ATEN",
    "DNNL", "ONEDNN", "PYTHON", "CUDA", "NCCL",
)  # fmt: skip
"""Variables that a library which the server has loaded reads then: a worker for which they differ cannot be forked."""
READ_LATER = ("PYTHONPATH", "TORCHINDUCTOR_CACHE_DIR")
START_SECONDS = 120.0
ANSWER_SECONDS = 10.0
REAP_SECONDS = 60.0
"""A process that was killed while it held much memory needs a while to end."""


class ForkServer:
    """One server, for one set of the variables that are read at start. It ends with this process, or by `close`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.owner = os.getpid()
        self.spared_seconds = 0.0
        self._started = False
        self._lock = threading.Lock()
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-P", "-m", "vivace.measure.forking.server", str(theirs.fileno()), str(os.getpid())]
        try:
            self._server = subprocess.Popen(
                [*command, *map(",".join, (ARM, READER, OTHERS))], env=dict(environment), stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
                start_new_session=True,
            )  # fmt: skip
        finally:
            theirs.close()

    def fork(self, environment: Mapping[str, str], preload: Sequence[str], theirs: Ends) -> Forked | None:
        """A worker with these ends of its pipes; None where the server cannot give one."""
        request = {
            "do": "fork",
            "environment": dict(environment),
            "preload": list(preload),
            **surroundings(),
        }
        patience = ANSWER_SECONDS if self._started else START_SECONDS
        answer = self._ask(request, list(dataclasses.astuple(theirs)), patience)
        self._started = True
        if not answer or "pid" not in answer:
            return None
        self.spared_seconds = answer["spared"] + answer["shared"]
        return Forked(self, answer["pid"], answer["spared"], answer["reader"], answer["shared"])

    def share(self, modules: Sequence[str]) -> bool:
        """Have it import more; whether workers can still be forked from it."""
        answer = self._ask({"do": "import", "modules": list(modules)}, [], START_SECONDS)
        return answer is not None and answer.get("threads") == 1

    def reap(self, pid: int) -> int | None:
        """Wait for a child that has ended or was killed; its exit code, None where the server is gone."""
        answer = self._ask({"do": "reap", "pid": pid}, [], REAP_SECONDS)
        return None if answer is None else answer.get("code")

    @property
    def alive(self) -> bool:
        """Whether this process may still ask it."""
        return self.owner == os.getpid() and self._server.poll() is None

    def close(self) -> None:
        """End it. Its children end with it."""
        with contextlib.suppress(OSError):
            self._channel.close()
        if self.owner == os.getpid():
            with contextlib.suppress(OSError):
                self._server.kill()
                self._server.wait()

    def _ask(self, request: dict[str, Any], descriptors: list[int], seconds: float) -> dict[str, Any] | None:
        with self._lock:
            try:
                socket.send_fds(self._channel, [json.dumps(request).encode()], descriptors)
                poller = select.poll()
                poller.register(self._channel, select.POLLIN)
                if not poller.poll(1000 * seconds):
                    self.close()  # it answers nobody; an answer that came later would be taken for another's
                    return None
                text = self._channel.recv(LARGEST_MESSAGE)
            except OSError:
                return None
        answer: dict[str, Any] | None = json.loads(text) if text else None
        return answer


class Forked:
    """A child of the fork server, whose states are read from /proc."""

    def __init__(
        self, server: ForkServer, pid: int, spared_seconds: float, reader_seconds: float, shared_seconds: float
    ) -> None:
        self.pid = pid
        self.spared_seconds = spared_seconds
        self.reader_seconds = reader_seconds
        self.shared_seconds = shared_seconds
        self.returncode: int | None = None
        self._server = server

    def wait(self) -> int | None:
        """Sleep until it has ended, and have it reaped. Where the server is gone, it has been killed with it."""
        if self.returncode is None:
            self.returncode = self._server.reap(self.pid)
        return self.returncode

    def has_exited(self) -> bool:
        """Whether it has ended."""
        return self.returncode is not None or self._state() in ("Z", "X", "")

    def is_stopped(self) -> bool:
        """Whether it is stopped, or has ended."""
        return self.returncode is not None or self._state() in ("T", "Z", "X", "")

    def _state(self) -> str:
        """Field 3 of proc(5) stat; empty when there is no such process."""
        try:
            text = (Path("/proc") / str(self.pid) / "stat").read_text(errors="replace")
        except OSError:
            return ""
        return text.rpartition(")")[2].split()[0]


_servers: dict[frozenset[tuple[str, str]], ForkServer] = {}
_retired: list[ForkServer] = []
_guard = threading.Lock()
MOST_SERVERS = 2


def prepare() -> None:
    """Start the server that `forked` will ask, so that it imports while other things are done. Never raises."""
    _server_for(child_environment({}))


def forked(environment: Mapping[str, str], preload: Sequence[str], theirs: Ends) -> Child | None:
    """A worker with exactly this environment, forked; None where that is not possible, and one must be executed."""
    server = _server_for(environment)
    return server.fork(environment, preload, theirs) if server else None


def spared_seconds() -> float:
    """What a fresh interpreter would have taken longer than the worker that was forked last; 0 where none was."""
    with _guard:
        return max((server.spared_seconds for server in _servers.values()), default=0.0)


def share(modules: Sequence[str]) -> None:
    """Have installed packages' modules imported once for all workers that will be forked. Never raises.

    Where a package starts threads when it is imported, another server takes over, and each worker imports by itself.
    """
    server = _server_for(child_environment({})) if modules else None
    if server is not None and not server.share(modules):
        with _guard:
            _retired.append(server)  # its workers end with it
            for key in [key for key, other in _servers.items() if other is server]:
                del _servers[key]


def close_all() -> None:
    """End every server of this process."""
    with _guard:
        for server in (*_servers.values(), *_retired):
            server.close()
        _servers.clear()
        _retired.clear()


def _server_for(environment: Mapping[str, str]) -> ForkServer | None:
    if not sys.platform.startswith("linux"):
        return None
    key = frozenset((name, value) for name, value in environment.items() if _is_read_at_start(name))
    with _guard:
        found = _servers.get(key)
        if found is not None and found.alive:
            return found
        for other, server in list(_servers.items()):
            if not server.alive:
                server.close()
                del _servers[other]
        if len(_servers) >= MOST_SERVERS:
            return None
        with contextlib.suppress(OSError):
            _servers[key] = ForkServer(environment)
        return _servers.get(key)


def _is_read_at_start(name: str) -> bool:
    return name.startswith(READ_AT_START) and name not in READ_LATER


atexit.register(close_all)
