"""Every error that Vivace raises on purpose, in one tree; each knows the exit code of the command line.

Exit codes 3 (nothing beat the original) and 4 (quality could not be certified) are no errors: `core.result.Status`.

VivaceError
├── UsageError            2    what the user gave cannot be used
│   ├── CallError         2    a call outside what an artifact accepts
│   ├── StepChanged       2    a training step that was recorded is another one by now
│   └── UnsupportedModel  2    the model cannot be captured as a graph
├── EnvironmentFault      5    this machine lacks something, or it broke
│   ├── MissingExtra      5    an optional package is not installed
│   ├── ArtifactError     5    an artifact is damaged, unsafe or from elsewhere
│   ├── ProofFailed       5    hardware that was made does not compute what it should
│   └── WorkerFailure     5    an isolated worker failed; carries the Outcome
├── DiskFull              6
├── Cancelled           130
└── NotApplicable         -    a technique has nothing to do here; the search catches it
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from vivace.core.measurement import Outcome


class VivaceError(Exception):
    """Base of the tree. The message says what was received, what is allowed and what to do."""

    exit_code: ClassVar[int] = 1


class UsageError(VivaceError, ValueError):
    """What the user gave cannot be used."""

    exit_code = 2


class CallError(UsageError, TypeError):
    """A model was called in a way that its artifact does not accept."""


class StepChanged(UsageError):
    """A training step that was recorded is another one by now; `vivace.train` goes on without the recording."""


class UnsupportedModel(UsageError):
    """The model cannot be captured as a graph, so nothing could be built from it or stored."""


class EnvironmentFault(VivaceError, RuntimeError):
    """This machine lacks something that the request needs, or something on it broke."""

    exit_code = 5


class MissingExtra(EnvironmentFault):
    """An optional package is not installed; the message ends with the line that installs it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(f"{purpose} needs the package {package}, which is not installed; {install_line(extra)}")


class ArtifactError(EnvironmentFault):
    """An artifact is damaged, unsafe, of another schema, or fails its own golden check."""


class ProofFailed(EnvironmentFault):
    """Hardware that was made differs from its golden model: a defect of Vivace or of a tool. Nothing was proved."""


class WorkerFailure(EnvironmentFault):
    """An isolated worker did not finish its job; `outcome` names how, with the reason."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        self.outcome = outcome
        self.reason = reason
        super().__init__(f"{outcome.value}: {reason}")


class DiskFull(VivaceError, OSError):
    """There is no room left on the disk; the message says where."""

    exit_code = 6


def lacks_room(error: BaseException) -> bool:
    """Whether an error says that the disk, or one's share of it, is full. Libraries that are not written in Python have
    errors of their own, with the system's number in their text.

    >>> lacks_room(OSError(28, "No space left on device")), lacks_room(ValueError("I/O error (os error 28)"))
    (True, True)
    """
    full = (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, OSError):
        return isinstance(error, DiskFull) or error.errno in full
    return any(f"(os error {number})" in str(error) for number in full)


def told_of(error: Exception) -> str:
    """What code of the user's raised, in one line with its kind. What is said already, or is of the machine and not of
    that code (no memory, no room on the disk), is raised again.

    >>> told_of(KeyError("label_19"))
    "KeyError: 'label_19'"
    """
    if isinstance(error, VivaceError | MemoryError) or lacks_room(error):
        raise error
    return " ".join(f"{type(error).__name__}: {error}".split())


class Cancelled(VivaceError):
    """The user asked to stop (Ctrl-C or a termination signal)."""

    exit_code = 130


class NotApplicable(VivaceError):
    """A technique would change nothing here, or cannot run here; `reason` says why, for the report."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def install_line(extra: str) -> str:
    """The command that installs one extra of Vivace.

    >>> install_line("onnx")
    "install it with: pip install 'vivace[onnx]'"
    """
    return f"install it with: pip install 'vivace[{extra}]'"


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """An error for a name that does not exist, with the nearest ones that do.

    >>> str(unknown_name("technique", "threds", ["threads", "inductor"]))
    "unknown technique 'threds'; did you mean 'threads'? Known: inductor, threads"
    """
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else "."
    return UsageError(f"unknown {kind} {name!r}{hint} Known: {', '.join(names) or 'none'}")
