"""A program under its engine's own profiler: called like any other, and asked where the time of its calls went."""

from __future__ import annotations

import statistics
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from vivace.core.compute import OperatorTime
from vivace.runtimes.program import Program

Key = TypeVar("Key", bound=Hashable)
Shapes = tuple[tuple[int, ...], ...]
"""Of a call's flat inputs."""


class Profiled(ABC):
    """A program to be called as its user would. Calls between `start` and `stop` are profiled; `form` is what runs.

    The engine's profiler holds the time of operators; the time of a whole call is the caller's to read. `most_calls`
    are as many as should be profiled, for what is recorded of them has to be read.
    """

    most_calls = 50

    def __init__(self, program: Program) -> None:
        self.program = program
        self.form = program.form.value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """One call."""
        return self.program(*args, **kwargs)

    @abstractmethod
    def start(self) -> None:
        """Forget what was called so far: the program is warm."""

    @abstractmethod
    def stop(self) -> tuple[tuple[OperatorTime, ...], str]:
        """The operators in the order of running, with their seconds in one call, and a note on what is not known."""

    def close(self) -> None:
        """Free the runtime."""
        self.program.close()


def medians(calls: Sequence[Mapping[Key, float]]) -> dict[Key, float]:
    """The median seconds of each operator over calls, in the order of the first call in which it ran; what did not run
    in a call took nothing there.

    >>> medians([{"conv": 3.0, "relu": 1.0}, {"conv": 5.0}, {"conv": 4.0, "relu": 1.0}])
    {'conv': 4.0, 'relu': 1.0}
    """
    return {key: statistics.median(call.get(key, 0.0) for call in calls) for key in dict.fromkeys(_keys(calls))}


def _keys(calls: Sequence[Mapping[Key, float]]) -> Iterable[Key]:
    return (key for call in calls for key in call)
