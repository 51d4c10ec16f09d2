"""What a worker's interpreter finds when it starts: the parent's environment, silence, where to look for modules."""

from __future__ import annotations

import contextlib
import contextvars
import os
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

QUIET = {
    "KERAS_BACKEND": "torch",
    "PYTHONFAULTHANDLER": "1",
    "PYTHONUNBUFFERED": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "KINETO_LOG_LEVEL": "6",  # PyTorch's profiler tells of each start and stop, as the last words of whoever ends later
}
"""What every worker's environment has. Threads are left as the user has them: they are what is measured."""


_everywhere: contextvars.ContextVar[Mapping[str, str]] = contextvars.ContextVar(
    "of every worker", default=types.MappingProxyType({})
)


def child_environment(further: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker; `further` has the last word."""
    return {**os.environ, **QUIET, "PYTHONPATH": _search_path(), **_everywhere.get(), **further}


@contextlib.contextmanager
def of_every_worker(variables: Mapping[str, str]) -> Iterator[None]:
    """Inside, the environment of every worker has these too.

    >>> with of_every_worker({"SEED": "1"}):
    ...     child_environment({})["SEED"]
    '1'
    """
    token = _everywhere.set({**_everywhere.get(), **variables})
    try:
        yield
    finally:
        _everywhere.reset(token)


def surroundings() -> dict[str, Any]:
    """What else a worker takes from its parent when it starts: the folder that it is in, and the cores that it may use
    (none named where the system does not tell)."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return {"folder": str(Path.cwd()), "cores": cores}


def _search_path() -> str:
    """Where this interpreter looks for modules, so that the child finds the user's."""
    return os.pathsep.join(dict.fromkeys(entry or os.getcwd() for entry in sys.path))  # noqa: PTH109  a text is needed
