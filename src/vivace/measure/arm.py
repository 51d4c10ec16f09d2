"""The child's side of a measurement: one program, its calls in memory, and the ways to run and time it.

The samples' store is named, not imported: `measure` does not know `data`. It is a module with
`read(folder)`, giving `len()`, `.arguments(i) -> (args, kwargs)` and perhaps `.mix`, and
`write_outputs(path, outputs, structure)`.
"""

from __future__ import annotations

import importlib
import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vivace.core.errors import UsageError, WorkerFailure
from vivace.core.measurement import Outcome
from vivace.core.structure import Structure, flatten
from vivace.core.workload import Mix
from vivace.measure import clock, environment, memory, stats
from vivace.measure.device_clock import ClockWatch, current_share
from vivace.measure.worker import find

SAMPLES = "vivace.data.samples"
DISTINCT = 8
"""Inputs that timing walks at the least, where there are that many; what is over is held out to unmask caches."""
HELD_OUT = 4
CACHE_FACTOR = 3.0
"""A repeated input this much faster than a new one of the same shape is answered from memory (after MLPerf TEST04)."""
WINDOW = 20
SLOW_WINDOW_SECONDS = 1.0

Call = tuple[tuple[Any, ...], dict[str, Any]]
Program = Callable[..., Any]


def open_arm(arguments: Mapping[str, Any], payload: object | None) -> Arm:
    """The entry of a worker that measures.

    `arguments`: "program" ("module:function", called with its "arguments" and the payload, returns the callable),
    "calls" (a folder of stored calls), and optionally "samples" (the store's module) and "device" (where inputs lie).
    A program that has `timed`, a function of how many calls, makes and times them itself: it takes no inputs, and
    asking it takes longer than reading a clock. One whose `runs_ahead` is true launches work on a CUDA device and
    nobody waits for one call before the next, as in a training: calls of a block are then timed together. So are those
    of a program with `many`, which makes so many calls in one go.
    """
    store = importlib.import_module(arguments.get("samples", SAMPLES))
    device = torch.device(arguments.get("device", "cpu"))
    timer = clock.SystemClock()
    started = timer.now()
    program = find(arguments["program"])(arguments["arguments"], payload)
    load_seconds = timer.now() - started
    if not callable(program):
        raise UsageError(f"{arguments['program']} returned a {type(program).__name__}; allowed is something to call")
    stored = store.read(Path(arguments["calls"]))
    return Arm(program, _load_calls(stored, device), load_seconds, store, device, getattr(stored, "mix", None))


class Arm:
    """A program and the calls that it is measured with, used exactly as its user would: program(*args, **kwargs)."""

    def __init__(
        self,
        program: Program,
        calls: list[Call],
        load_seconds: float,
        store: Any,
        device: torch.device,
        mix: Mix | None = None,
    ) -> None:
        if not calls:
            raise UsageError("there is no call to measure with; give the workload inputs or data")
        held_out = min(HELD_OUT, max(0, len(calls) - DISTINCT))
        self._program = program
        self._calls = calls[: len(calls) - held_out]
        self._held_out = calls[len(calls) - held_out :]
        self._store = store
        self._device = device
        self._runs_ahead = bool(getattr(program, "runs_ahead", False))
        self._times_itself: Callable[[int], list[float]] | None = getattr(program, "timed", None)
        self._on_cuda = device.type == "cuda" or self._runs_ahead
        self._clock = clock.SystemClock()
        self._watch: ClockWatch | None = None
        self._ran = self._waited = 0.0
        self._peak_is_ours = memory.reset_peak()
        self._mix = None if mix is None else mix.walk(0, len(self._calls))
        self.opened: dict[str, Any] = {"load_seconds": load_seconds, "calls": len(self._calls), "held_out": held_out}
        if self._mix is not None:
            self.opened["mix"] = self._mix.to_json()

    def first_call(self) -> dict[str, float]:
        """Seconds of the very first call, with all that is done lazily."""
        started = self._clock.now()
        answer = self._run(0)
        self._on_cuda = self._on_cuda or _touches_cuda(answer)
        if self._on_cuda:
            torch.cuda.synchronize()
        return {"seconds": self._clock.now() - started}

    def warm(self, max_seconds: float = 10.0, max_calls: int = 2000) -> dict[str, Any]:
        """Call until times settle (`stats.is_steady`), at least once with each input, at most until a limit.

        Returns how many calls, whether they settled, and seconds_per_call, the median of the last window; of calls in
        several shapes a window is whole walks, so that two of them hold the same.
        """
        started, seconds = self._clock.now(), list[float]()
        with clock.quiet_collector():
            while True:
                seconds += self._timed([len(seconds)])
                window = _window(seconds)
                if self._mix is not None:
                    window = -(-window // len(self._calls)) * len(self._calls)
                steady = len(seconds) >= len(self._calls) and stats.is_steady(seconds, window)
                if steady or len(seconds) >= max_calls or self._clock.now() - started > max_seconds:
                    break
        last = seconds[-window:]
        mix = self._mix and self._mix.walk(len(seconds) - len(last), len(last))
        return {"calls": len(seconds), "steady": steady, "seconds_per_call": stats.call_seconds(last, mix)}

    def time(self, start: int, calls: int, settle: bool = True) -> list[float]:
        """Seconds of each of `calls` calls, walking the inputs from index `start`, in a circle.

        With `settle` one call is made first and not timed, with the input before the first: caches and threads then
        are the program's own again after the other arm ran. On a CUDA device that ran far below its base clock the
        calls are timed again (`device_clock`).
        """

        def block() -> list[float]:
            if settle:
                self._timed([start - 1])
            return self._timed(range(start, start + calls))

        before = environment.core_seconds()
        try:
            return self._undisturbed(block)
        finally:
            after = environment.core_seconds()
            self._ran += after[0] - before[0]
            self._waited += after[1] - before[1]

    def _undisturbed(self, block: Callable[[], list[float]]) -> list[float]:
        with clock.quiet_collector():
            if not self._on_cuda:
                return block()
            if self._watch is None:
                named = self._device if self._device.type == "cuda" else None
                self._watch = ClockWatch(current_share(named))
            return self._watch.timed(block)

    def outputs(self, calls: str, to: str, limit: int | None = None) -> dict[str, Any]:
        """Run the stored calls of a folder (the first `limit`) and write the flat answers to a file.

        Returns the number of calls, whether every value is finite, and the answer's structure. Raises WorkerFailure
        (WRONG_OUTPUT) when answers differ in structure.
        """
        stored = self._store.read(Path(calls))
        found: list[list[torch.Tensor]] = []
        structure: Structure | None = None
        for index, (args, kwargs) in enumerate(itertools.islice(stored.each(), limit)):
            tensors, shape = _flat(self._program(*_owned(args, self._device), **_owned(kwargs, self._device)))
            if structure is not None and shape != structure:
                raise WorkerFailure(
                    Outcome.WRONG_OUTPUT, f"call {index} has an answer of another structure than call 0"
                )
            structure = shape
            found.append(tensors)
        if structure is None:
            raise UsageError(f"{calls} holds no call")
        self._store.write_outputs(Path(to), found, structure)
        finite = all(bool(torch.isfinite(tensor).all()) for answer in found for tensor in answer)
        return {"calls": len(found), "finite": finite, "structure": structure.to_json()}

    def repeatable(self) -> dict[str, Any]:
        """Whether the same input gives the same bits twice, with another call between; and the largest difference."""
        first, _ = _flat(self._run(0))
        self._run(1)
        second, _ = _flat(self._run(0))
        same = len(first) == len(second) and all(map(_same_bits, first, second))
        return {"repeatable": same, "difference": 0.0 if same else _largest_difference(first, second)}

    def caching(self) -> dict[str, Any]:
        """Whether repeated inputs are answered from memory: held-out inputs are timed new, and then again.

        "cached" is None when there is no held-out input of a shape that was run before. Each call works once; later
        calls find no new input. Threads are awake, for a known input runs before each new one. A cache makes every new
        input slow, a busy machine only some: the smallest ratio decides.
        """
        seen = {_shapes(call) for call in self._calls}
        new, self._held_out = [call for call in self._held_out if _shapes(call) in seen], []
        timed = [self._time_new(call) for call in new]
        if not timed:
            return {"cached": None, "new_over_repeated": None, "new_seconds": [], "repeated_seconds": []}
        ratio = min(first / again for first, again in timed)
        first, again = zip(*timed, strict=True)
        told = {"new_seconds": list(first), "repeated_seconds": list(again)}
        return {"cached": ratio > CACHE_FACTOR, "new_over_repeated": ratio, **told}

    def memory(self) -> dict[str, int]:
        """Peak bytes since the program was loaded: of this process, its children as they are now, and the device."""
        everyone = memory.tree_bytes(memory.own_pid())
        children = max(0, everyone - memory.resident_bytes([memory.own_pid()]))
        device = torch.cuda.max_memory_allocated() if self._on_cuda else 0
        device = device or getattr(self._program, "device_peak_bytes", int)()
        return {"peak_bytes": memory.peak_bytes() + children, "device_peak_bytes": device}

    def waited_share(self) -> float:
        """Of the time in which threads could run while calls were timed, what they waited for a core."""
        able = self._ran + self._waited
        return self._waited / able if able > 0 else 0.0

    def clock_note(self) -> str:
        """What the reader of this arm's times should know of the device's clock; empty without a device."""
        return self._watch.note() if self._watch else ""

    def environment(self) -> dict[str, Any]:
        """What this process runs under."""
        return environment.snapshot()

    def close(self) -> None:
        """Let the program release what it holds, if it knows how."""
        close = getattr(self._program, "close", None)
        if callable(close):
            close()

    def _run(self, index: int) -> Any:
        args, kwargs = self._calls[index % len(self._calls)]
        return self._program(*args, **kwargs)

    def _timed(self, indices: Any) -> list[float]:
        program, calls, count = self._program, self._calls, len(self._calls)
        many = getattr(program, "many", None)
        if many is not None:
            return clock.time_in_one_go(many, len(indices))
        timed = [calls[index % count] for index in indices]
        if self._times_itself is not None:
            return self._times_itself(len(timed))

        def run(index: int) -> Any:
            args, kwargs = timed[index]
            return program(*args, **kwargs)

        return self._timer()(run, range(len(timed)))

    def _timer(self) -> Callable[[Callable[[int], Any], Sequence[int]], list[float]]:
        if not self._on_cuda:
            return clock.time_calls
        return clock.time_device_block if self._runs_ahead else clock.time_device_calls

    def _time_new(self, call: Call) -> tuple[float, float]:
        def run(index: int) -> Any:
            args, kwargs = self._calls[0] if index == 0 else call
            return self._program(*args, **kwargs)

        _, new, *again = self._timer()(run, [0, 1, 1, 1, 1])
        return new, statistics.median(again)


def _load_calls(stored: Any, device: torch.device) -> list[Call]:
    """Every call, in memory of its own: distinct tensors, not pages of a file."""
    calls = []
    for args, kwargs in stored.each():
        calls.append((_owned(args, device), _owned(kwargs, device)))
    return calls


def _owned(value: Any, device: torch.device) -> Any:
    """A copy of the arguments with every tensor cloned to the device."""
    leaves, structure = flatten(value, torch.is_tensor)
    return structure.build([leaf.to(device, copy=True) for leaf in leaves])


def _is_array(value: Any) -> bool:
    return isinstance(value, torch.Tensor | np.ndarray)


def _flat(answer: Any) -> tuple[list[torch.Tensor], Structure]:
    """The answer's tensors, copied to the CPU so that a program may reuse its buffers, and how they are nested."""
    leaves, structure = flatten(answer, _is_array)
    return [torch.as_tensor(leaf).detach().to("cpu", copy=True) for leaf in leaves], structure


def _touches_cuda(answer: Any) -> bool:
    leaves, _ = flatten(answer, _is_array)
    return any(isinstance(leaf, torch.Tensor) and leaf.is_cuda for leaf in leaves)


def _shapes(call: Call) -> tuple[tuple[int, ...], ...]:
    leaves, _ = flatten({"args": call[0], "kwargs": call[1]}, torch.is_tensor)
    return tuple(tuple(leaf.shape) for leaf in leaves)


def _window(seconds: list[float]) -> int:
    """How many calls make a window: 20, or as many as fill a second, but at least 4."""
    return max(4, min(WINDOW, int(SLOW_WINDOW_SECONDS / max(seconds[-1], 1e-9))))


def _same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    return bool(((first == second) | (first.isnan() & second.isnan())).all())


def _largest_difference(first: list[torch.Tensor], second: list[torch.Tensor]) -> float:
    if [t.shape for t in first] != [t.shape for t in second]:
        return float("inf")
    differences = [
        (a.double() - b.double()).abs().max().item() for a, b in zip(first, second, strict=True) if a.numel()
    ]
    return max(differences, default=0.0)
