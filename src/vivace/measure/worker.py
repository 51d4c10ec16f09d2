"""The child: a fresh interpreter that loads one service and answers its parent's calls until it is told to stop.

Started by `process.Worker` as `python -m vivace.measure.worker READ WRITE PARENT [MODULE ...]`. It imports the modules,
then speaks `wire` on two inherited pipes; whatever anything here prints goes to the log. It dies with its parent, and
leaves by `os._exit`, because exit handlers of compilers and thread pools are known to hang.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import importlib
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from vivace.core import errors
from vivace.core.measurement import Outcome
from vivace.measure import wire

PR_SET_PDEATHSIG = 1
OOM_SCORE = "500"
MEMORY_PHRASES = ("can't allocate memory", "out of memory", "std::bad_alloc", "cannot allocate memory")
"""How PyTorch's CPU allocator, CUDA and C++ runtimes name a lack of memory inside a RuntimeError."""
RAISED_AGAIN = ("CallError", "StepChanged", "UnsupportedModel", "UsageError", "ArtifactError", "EnvironmentFault")
"""Errors that the parent raises as the same class: they are about what the user gave, not about this worker."""
PLAIN = (type(None), bool, int, float, str, list, dict)


def main(arguments: list[str]) -> None:
    """Serve until the parent says close, or is gone."""
    commands, answers, parent = (int(argument) for argument in arguments[:3])
    _die_with(parent)
    _prefer_as_victim()
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    for descriptor in (commands, answers):
        os.set_inheritable(descriptor, False)
    _import(arguments[3:])
    try:
        Server(commands, answers).run()
    except (wire.PipeClosedError, BrokenPipeError):
        os._exit(3)
    os._exit(0)


class Server:
    """Answers open, call and close, one at a time."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = answers
        self._service: Any = None

    def run(self) -> None:
        """Read, do, answer."""
        while True:
            command = wire.read_frame(self._commands)
            if command["do"] == "close":
                self._close()
                return
            if command["do"] == "ready":
                wire.write_frame(self._answers, {"result": None})
                continue
            wire.write_frame(self._answers, self._answer(command))

    def _answer(self, command: dict[str, Any]) -> dict[str, Any]:
        try:
            result = self._open(command) if command["do"] == "open" else self._call(command)
            return _checked({"result": result})
        except (Exception, SystemExit) as error:  # noqa: BLE001  the user's and third parties' code may raise anything
            traceback.print_exc()
            return {"error": describe(error)}
        finally:
            _flush()

    def _open(self, command: dict[str, Any]) -> Any:
        payload = None
        if command["payload"]:
            from vivace.measure import parcel  # imports torch: only for those who need it

            payload = parcel.receive(self._commands)
        self._service = find(command["entry"])(command["arguments"], payload)
        if isinstance(self._service, PLAIN):
            return self._service
        return getattr(self._service, "opened", None)

    def _call(self, command: dict[str, Any]) -> Any:
        if self._service is None:
            raise errors.UsageError("nothing is open in this worker; call open first")
        return getattr(self._service, command["method"])(**command["arguments"])

    def _close(self) -> None:
        close = getattr(self._service, "close", None)
        if callable(close):
            close()
        _flush()


def _import(modules: list[str]) -> None:
    """Import what will be needed while nobody waits for it; what fails here fails again, and is told, when opened."""
    for module in modules:
        with contextlib.suppress(Exception, SystemExit):  # it may be the user's own
            importlib.import_module(module)
    _flush()


def find(entry: str) -> Any:
    """The object that `module:name` names, imported."""
    module, _, name = entry.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def describe(error: BaseException) -> dict[str, str]:
    """An error as the parent needs it: `raise` (a class of core.errors), or `outcome`, and the reason."""
    if isinstance(error, errors.NotApplicable):
        return {"outcome": Outcome.UNSUPPORTED.value, "reason": error.reason}
    if isinstance(error, errors.WorkerFailure):
        return {"outcome": error.outcome.value, "reason": error.reason}
    if errors.lacks_room(error):
        return {"outcome": Outcome.DISK_FULL.value, "reason": str(error)}
    if _lacks_memory(error):
        return {"outcome": Outcome.OOM.value, "reason": _sentence(error)}
    for name in RAISED_AGAIN:
        if isinstance(error, getattr(errors, name)):
            return {"raise": name, "reason": str(error)}
    return {"outcome": "", "reason": _sentence(error)}


def _lacks_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(phrase in text for phrase in MEMORY_PHRASES)
    )


def _sentence(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    wire.encode(answer)
    return answer


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def _die_with(parent: int) -> None:
    """Be killed when the parent ends (prctl(2)); leave at once if it ended before we could ask."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(3)


def _prefer_as_victim() -> None:
    """If the kernel must kill for memory, let it be this process and not the one that coordinates."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)


if __name__ == "__main__":
    main(sys.argv[1:])
