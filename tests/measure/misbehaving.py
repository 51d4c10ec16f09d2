"""Services for workers under test: each function is an entry (arguments, payload) of a worker."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from vivace.core import errors
from vivace.core.measurement import Outcome
from vivace.measure.process import Phase, Worker
from vivace.measure.waiting import Deadline


def echo(arguments: dict[str, Any], payload: object) -> Any:
    """Give back the arguments."""
    return arguments


def about(arguments: dict[str, Any], payload: object) -> Any:
    """What arrived, in words."""
    return {"type": type(payload).__name__, "module": type(payload).__module__}


def tied(arguments: dict[str, Any], payload: Any) -> Any:
    """Whether two tensors of the payload share their memory, and its values."""
    return {"shared": payload[0].data_ptr() == payload[1].data_ptr(), "values": payload[0].tolist()}


def variable(arguments: dict[str, Any], payload: object) -> Any:
    """One variable of the environment."""
    return os.environ.get(arguments["name"])


def evaluated(arguments: dict[str, Any], payload: object) -> Any:
    """What a Python expression gives here."""
    return eval(arguments["expression"])  # the tests' own words


def forks(arguments: dict[str, Any], payload: object) -> dict[str, list[int]]:
    """Have a worker forked and forget it; the server's process and the worker's."""
    worker = Worker(Path(arguments["folder"]), fresh=False)
    worker.ready()
    FORGOTTEN.append(worker)
    return {"pids": [worker.pid, psutil.Process(worker.pid).ppid()]}


FORGOTTEN: list[Worker] = []


def service(arguments: dict[str, Any], payload: object) -> Service:
    """Something with methods that go wrong."""
    return Service()


def slow_service(arguments: dict[str, Any], payload: object) -> Service:
    """The same, after so many seconds."""
    time.sleep(arguments["seconds"])
    return Service()


def raises(arguments: dict[str, Any], payload: object) -> None:
    """Raise the error that is asked for."""
    raise ERRORS[arguments["error"]]


ERRORS: dict[str, BaseException] = {
    "not applicable": errors.NotApplicable("there is no convolution"),
    "usage": errors.UsageError("received 3; allowed is 2"),
    "artifact": errors.ArtifactError("it is damaged"),
    "failure": errors.WorkerFailure(Outcome.NONFINITE, "NaN in output 0"),
    "memory": MemoryError("too much"),
    "torch memory": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    "disk": OSError(errno.ENOSPC, "No space left on device"),
    "any": KeyError("weights"),
    "exit": SystemExit(7),
}


class Service:
    """Methods that a planted bad candidate would have."""

    opened = {"ready": True}  # noqa: RUF012

    def pid(self) -> int:
        """This process."""
        return os.getpid()

    def crash(self) -> None:
        """A segmentation fault."""
        ctypes.string_at(0)

    def leave(self) -> None:
        """End in the middle of a call."""
        os._exit(5)

    def hang(self) -> None:
        """Never answer."""
        time.sleep(600)

    def leak(self) -> None:
        """Take memory until stopped."""
        held = []
        while True:
            held.append(bytearray(50_000_000))
            time.sleep(0.02)

    def child_leaks(self) -> None:
        """Let a child process take the memory."""
        code = "import time; held = bytearray(500_000_000); time.sleep(600)"
        subprocess.run([sys.executable, "-c", code], check=False)

    def shout(self, megabytes: int) -> str:
        """Print a lot on the error stream."""
        for _ in range(megabytes):
            sys.stderr.write("x" * 999_999 + "\n")
        sys.stderr.write("the end\n")
        return "done"

    def speak(self) -> str:
        """Print on standard output."""
        print("hello from the child", flush=True)  # noqa: T201
        os.write(1, b"and from below\n")
        return "quiet answer"

    def unspeakable(self) -> object:
        """An answer that is not JSON."""
        return object()

    def large(self, size: int) -> str:
        """A long answer."""
        return "y" * size

    def count(self) -> int:
        """A number that shows that it still works."""
        return 1

    def ignore_termination(self) -> None:
        """Be hard to end."""
        import signal

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)


class HangsAtExit:
    """A service whose close never returns."""

    def close(self) -> None:
        """Never return."""
        time.sleep(600)


def hangs_at_exit(arguments: dict[str, Any], payload: object) -> HangsAtExit:
    """An entry."""
    return HangsAtExit()


class Starts:
    """A service that starts a worker of its own, as a parent that may be killed does."""

    def start(self, folder: str) -> int:
        """Start a worker, let it be busy in a call, and give its process."""
        self.inner = Worker(Path(folder))
        self.inner.open("misbehaving:service", {})
        hang = {"do": "call", "method": "hang", "arguments": {}}
        self.inner._send(hang, None, Deadline(Phase.MEASURE, 5))
        return self.inner.pid


def starts(arguments: dict[str, Any], payload: object) -> Starts:
    """An entry."""
    return Starts()
