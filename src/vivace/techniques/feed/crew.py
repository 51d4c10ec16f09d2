"""Worker processes that read samples: each is asked for a batch at a time and leaves it in memory that it shares.

The memory has no name and the processes are the kernel's to end with their parent, so a crash leaves nothing behind.
They belong to their parent's process group: what stops or ends that reaches them too.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import queue
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from vivace.core.errors import EnvironmentFault, NotApplicable, UnsupportedModel, UsageError, WorkerFailure
from vivace.core.measurement import Outcome
from vivace.measure import parcel, wire
from vivace.measure.child_environment import child_environment

ENTRY = "vivace.techniques.feed.fetching:open_fetcher"
END_SECONDS = 5.0
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Crew:
    """`count` processes with a copy of the dataset each; `collect` may be called from as many threads.

    Start it in a thread that lives as long as it is needed: the kernel ends its processes with that thread. Raises
    NotApplicable where the dataset cannot be sent to another process, naming what of it cannot.
    """

    def __init__(self, count: int, data: Any, collate: Callable[[list[Any]], Any]) -> None:
        why = why_unsendable(data, collate)
        if why is not None:
            raise NotApplicable(why)
        self._free: queue.SimpleQueue[_Member] = queue.SimpleQueue()
        self.members = [_Member() for _ in range(count)]
        self._finalizer = weakref.finalize(self, _end, self.members)
        for member in self.members:  # all are starting by now
            member.open(data, collate)
            self._free.put(member)

    def collect(self, indices: Sequence[int]) -> Any:
        """The batch of these samples. Raises WorkerFailure, with its process, where the one that reads them died, and
        what the dataset raises as an error of ours."""
        member = self._free.get()
        try:
            return member.collect(indices)
        finally:
            self._free.put(member)

    def close(self) -> None:
        """End all processes."""
        self._finalizer()


def why_unsendable(data: Any, collate: Callable[[list[Any]], Any]) -> str | None:
    """What of a dataset cannot be sent to a process, as a sentence; None where all of it can."""
    reason = _refusal((data, collate))
    if reason is None:
        return None
    state = vars(data) if hasattr(data, "__dict__") else {}
    named = {f"its attribute {name!r} ({type(value).__name__})": value for name, value in state.items()}
    named["the job's collate"] = collate
    found = next(((name, told) for name, value in named.items() if (told := _refusal(value))), None)
    culprit, told = found or (f"the {type(data).__name__}", reason)
    return (
        f"the dataset cannot be copied to worker processes: {culprit} cannot be pickled ({told}); open it when it is "
        "first used, or use threads, which share it (by='threads')"
    )


def _refusal(value: Any) -> str | None:
    try:
        parcel.send(value, lambda data: None)
    except UnsupportedModel as error:
        return str(error.__cause__)
    return None


class _Member:
    """One process, its two pipes and the memory that it shares."""

    def __init__(self) -> None:
        self.memory = _nameless_memory()
        child_reads, self._commands = os.pipe()
        self._answers, child_writes = os.pipe()
        self._view: mmap.mmap | None = None
        self._fault: WorkerFailure | None = None
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "vivace.measure.worker", str(child_reads), str(child_writes),
                 str(os.getpid())],
                stdin=subprocess.DEVNULL, pass_fds=(child_reads, child_writes, self.memory),
                env=child_environment(ONE_THREAD),
            )  # fmt: skip
        finally:
            os.close(child_reads)
            os.close(child_writes)

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._child.pid

    def open(self, data: Any, collate: Callable[[list[Any]], Any]) -> None:
        """Send it the dataset."""
        command = {"do": "open", "entry": ENTRY, "arguments": {"memory": self.memory}, "payload": True}
        self._ask(command, "it was given the dataset", (data, collate))

    def collect(self, indices: Sequence[int]) -> Any:
        """The batch of these samples, in memory of its own."""
        command = {"do": "call", "method": "fetch", "arguments": {"indices": list(indices)}}
        told = self._ask(command, f"it read samples {min(indices)} to {max(indices)}")
        memory = self._memory_of(told["bytes"])
        leaves = [_leaf(node, memory) for node in told["leaves"]]
        return pytree.tree_unflatten(leaves, pytree.treespec_loads(told["structure"]))

    def end(self) -> None:
        """End the process, wait for it, and let go of its memory."""
        self._child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(END_SECONDS)
        for descriptor in (self._commands, self._answers, self.memory):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _ask(self, command: dict[str, Any], doing: str, payload: object | None = None) -> dict[str, Any]:
        if self._fault is not None:
            raise self._fault
        try:
            wire.write_frame(self._commands, command)
            if payload is not None:
                parcel.send(payload, self._write)
            answer = wire.read_frame(self._answers)
        except (wire.PipeClosedError, OSError):
            self._fault = self._death(doing)
            raise self._fault from None
        if "error" in answer:
            raise _as_error(answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    def _write(self, data: memoryview) -> None:
        while data:
            data = data[os.write(self._commands, data) :]

    def _death(self, doing: str) -> WorkerFailure:
        try:
            code = self._child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            code = 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        return WorkerFailure(
            Outcome.CRASHED,
            f"the process {self.pid}, which reads samples for the training, {how} while {doing}; what it printed is in "
            "the log. If memory was short, use fewer workers, or threads (by='threads')",
        )

    def _memory_of(self, size: int) -> torch.Tensor:
        """The first bytes of the shared memory."""
        if size == 0:
            return torch.empty(0, dtype=torch.uint8)
        if self._view is None or len(self._view) < size:
            self._view = mmap.mmap(self.memory, os.fstat(self.memory).st_size)
        return torch.frombuffer(self._view, dtype=torch.uint8, count=size)


def _nameless_memory() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("vivace-samples")
    with tempfile.TemporaryFile() as file:  # without a name where the system has no such memory
        return os.dup(file.fileno())


def _leaf(node: dict[str, Any], memory: torch.Tensor) -> Any:
    if "value" in node:
        return node["value"]
    part = memory[node["at"] : node["at"] + node["bytes"]].clone()
    return part.view(getattr(torch, node["dtype"])).reshape(node["shape"])


def _as_error(told: dict[str, str]) -> Exception:
    """What a worker said is wrong, as the error that it would be here."""
    if told.get("raise") == "UsageError":
        return UsageError(told["reason"])
    if told.get("raise"):
        return EnvironmentFault(told["reason"])
    outcome = Outcome(told["outcome"]) if told.get("outcome") else Outcome.CRASHED
    if outcome is Outcome.UNSUPPORTED:
        return NotApplicable(told["reason"])
    return WorkerFailure(outcome, f"while reading samples: {told['reason']}")


def _end(members: Sequence[_Member]) -> None:
    for member in members:
        member.end()
