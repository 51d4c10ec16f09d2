"""Programs for arms under test: each function is a program entry (arguments, payload) that returns a callable."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def given(arguments: dict[str, Any], payload: Any) -> Any:
    """The payload itself."""
    return payload


def multiply(arguments: dict[str, Any], payload: object) -> Callable[[Tensor], Tensor]:
    """A product with a fixed matrix, repeated: work that takes time in proportion to `repeats`."""
    weight = torch.eye(64)

    def run(x: Tensor) -> Tensor:
        for _ in range(arguments.get("repeats", 1)):
            x = x @ weight
        return x

    return run


def spin(arguments: dict[str, Any], payload: object) -> Callable[[Tensor], Tensor]:
    """Burns `seconds` on one core, then answers."""
    seconds = arguments["seconds"]

    def run(x: Tensor) -> Tensor:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            pass
        return x

    return run


def meets(arguments: dict[str, Any], payload: object) -> Callable[[Tensor], Tensor]:
    """Opens at once; with MEET in its environment, not before another opens too, which writes the file `other`."""
    if "MEET" in os.environ:
        Path(arguments["mine"]).touch()
        until = time.monotonic() + 20
        while not Path(arguments["other"]).exists():
            if time.monotonic() > until:
                raise RuntimeError("nobody came")
            time.sleep(0.01)
    else:
        time.sleep(0.2)
    return lambda x: x + 1


def spin_by_rows(arguments: dict[str, Any], payload: object) -> Callable[[Tensor], Tensor]:
    """Burns `seconds` for each row of its input."""
    by_rows = {rows: spin({"seconds": rows * arguments["seconds"]}, None) for rows in (1, 2)}
    return lambda x: by_rows[x.shape[0]](x)


def remembers(arguments: dict[str, Any], payload: object) -> Callable[[Tensor], Tensor]:
    """Keeps answers by content, so that only new inputs cost anything."""
    known: dict[bytes, Tensor] = {}
    work = spin({"seconds": arguments.get("seconds", 0.002)}, None)

    def run(x: Tensor) -> Tensor:
        key = x.numpy().tobytes()
        if key not in known:
            known[key] = work(x)
        return known[key]

    return run


def remembers_half(arguments: dict[str, Any], payload: object) -> Callable[[Tensor], Tensor]:
    """Keeps what its first half gave: 16 ms for each input, and 22 more for new ones."""
    first, second = remembers({"seconds": 0.022}, payload), spin({"seconds": 0.016}, None)
    return lambda x: second(first(x))


def remembers_once(arguments: dict[str, Any], payload: object) -> Callable[[Tensor], Tensor]:
    """Slow on new inputs in the first process only, which leaves a `marker`, as on a machine that is busy meanwhile."""
    marker = Path(arguments["marker"])
    if marker.exists():
        return spin({"seconds": 0.002}, payload)
    marker.touch()
    return remembers({}, payload)


def fails_at(arguments: dict[str, Any], payload: object) -> Callable[[Tensor], Tensor]:
    """Raises at one call."""
    calls = 0

    def run(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == arguments["call"]:
            raise ValueError("planted")
        return x

    return run


def nested(arguments: dict[str, Any], payload: object) -> Callable[[Tensor], Any]:
    """An answer of several tensors, one of them not finite when it is asked for."""
    extra = float("nan") if arguments.get("nan") else 1.0
    return lambda x: {"twice": x * 2, "pair": (x.numpy(), torch.tensor(extra)), "name": "it"}


def restless(arguments: dict[str, Any], payload: object) -> Callable[[Tensor], Tensor]:
    """Another answer each time."""
    return lambda x: x + torch.rand(())


def itself(arguments: dict[str, Any], payload: object) -> object:
    """The program that was sent."""
    return payload


def uncallable(arguments: dict[str, Any], payload: object) -> int:
    """Not a program."""
    return 3
