"""A worker's service that calls a program under its engine's profiler, and times the calls beside it.

The program's opener is named, not imported: `measure` does not know `runtimes`. What it returns is called like any
program, and has `form`, `most_calls`, `start()`, and `stop()`, which gives the operators of one call and a note.
"""

from __future__ import annotations

import dataclasses
import importlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vivace.core.compute import Profile
from vivace.measure import clock
from vivace.measure.arm import SAMPLES
from vivace.measure.worker import find

SECONDS = 1.0
"""How long calls are profiled, if FEWEST of them fit."""
FEWEST = 3
WARM_CALLS = 2


class Profiler:
    """A program that is opened under a profiler, with the calls to make."""

    def __init__(self, program: Any, calls: Sequence[tuple[tuple[Any, ...], dict[str, Any]]]) -> None:
        self._program = program
        self._calls = calls

    def profile(self) -> dict[str, Any]:
        """A Profile as JSON, of as many calls as fit a second after a warm-up."""
        run = self._run()
        with clock.quiet_collector():
            warm = clock.time_calls(run, range(WARM_CALLS))
            count = max(FEWEST, min(self._program.most_calls, int(SECONDS / max(min(warm), 1e-9))))
            self._program.start()
            seconds = clock.time_calls(run, range(count))
            operators, note = self._program.stop()
        return dataclasses.asdict(Profile(self._program.form, statistics.median(seconds), operators, note))

    def close(self) -> None:
        """Let the program release what it holds."""
        self._program.close()

    def _run(self) -> Callable[[int], Any]:
        program, calls, count = self._program, self._calls, len(self._calls)

        def run(index: int) -> Any:
            args, kwargs = calls[index % count]
            return program(*args, **kwargs)

        return run


def open_profiler(arguments: Mapping[str, Any], payload: object | None = None) -> Profiler:
    """The worker's entry. `arguments`: "program" ("module:function", called with its "arguments"), "calls" (a folder of
    stored calls), "indices" (which of them), and optionally "samples" (the store's module)."""
    store = importlib.import_module(arguments.get("samples", SAMPLES))
    program = find(arguments["program"])(arguments["arguments"], payload)
    stored = store.read(Path(arguments["calls"]))
    return Profiler(program, [stored.arguments(index) for index in arguments["indices"]])
