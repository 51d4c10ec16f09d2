"""The choices of a model's search, from measured or given times, and every way to solve them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vivace.api.quantum.timing import PRECISIONS, LayerTimes
from vivace.core.documents import strict_json
from vivace.core.errors import UsageError
from vivace.measure.clock import SystemClock
from vivace.quantum.choices import annealing, exact, grover, qaoa
from vivace.quantum.choices.answer import Comparison, Solver, compared
from vivace.quantum.choices.problem import PrecisionChoice, StageChoice
from vivace.quantum.limits import SimulationLimits

KEYS = frozenset({"layers", "precisions", "seconds", "switch_seconds"})
MOST_BYTES = 1 << 20
MOST_BLOCKS = 10
"""Layers beyond so many are taken together in blocks, so that the circuits stay small."""


def solvers(seed: int, limits: SimulationLimits) -> tuple[Solver, ...]:
    """Every solver, the exact one first."""
    return (
        Solver("dynamic programming", "EXACT", exact.solve),
        Solver("simulated annealing", "HEURISTIC", lambda choice: annealing.solve(choice, seed)),
        Solver("QAOA", "SIMULATED", lambda choice: qaoa.solve(choice, seed, limits)),
        Solver("Grover minimum finding", "SIMULATED", lambda choice: grover.solve(choice, seed, limits)),
    )


def solved(choice: PrecisionChoice, stages: int, basis: str, seed: int, limits: SimulationLimits) -> list[Comparison]:
    """The precision of each layer, and the cuts into pipeline stages at the first precision's times.

    Cuts hand on for free: between processes of one machine nothing was measured.
    """
    blocks, note = in_blocks(choice)
    found = [compared(blocks, solvers(seed, limits), SystemClock().now, basis, note)]
    if 2 <= stages <= len(blocks.layers):
        seconds = tuple(row[0] for row in blocks.seconds)
        cut = StageChoice(blocks.layers, seconds, (0.0,) * (len(seconds) - 1), stages)
        found.append(compared(cut, solvers(seed, limits), SystemClock().now, basis, note))
    return found


def in_blocks(choice: PrecisionChoice, most: int = MOST_BLOCKS) -> tuple[PrecisionChoice, str]:
    """The same choice for blocks of consecutive layers where there are more layers than `most`, and a sentence on
    it."""
    count = len(choice.layers)
    if count <= most:
        return choice, ""
    ends = [(block + 1) * count // most for block in range(most)]
    spans = list(zip([0, *ends[:-1]], ends, strict=True))
    seconds = tuple(tuple(map(sum, zip(*choice.seconds[begin:end], strict=True))) for begin, end in spans)
    names = tuple(f"{choice.layers[begin]}..{choice.layers[end - 1]}" for begin, end in spans)
    places = tuple(choice.switch_seconds[begin] for begin in [0, *ends])
    note = f"{count} layers in {most} blocks of consecutive ones, so that circuits can hold them"
    return dataclasses.replace(choice, layers=names, seconds=seconds, switch_seconds=places), note


def measured(labels: Sequence[str], times: LayerTimes) -> PrecisionChoice:
    """The choice that measured times make."""
    return PrecisionChoice(tuple(labels), PRECISIONS, times.seconds, times.switch_seconds)


def given(times: str | Path | Mapping[str, Any]) -> PrecisionChoice:
    """The choice that a user's times make: a mapping or a JSON file with layers, precisions, seconds [layer][precision]
    and switch_seconds [place][before][after]. Raises UsageError for what cannot be read, with what is allowed."""
    node: Any = times if isinstance(times, Mapping) else _read(Path(times))
    if not isinstance(node, Mapping) or set(node) != KEYS:
        keys = sorted(map(str, node)) if isinstance(node, Mapping) else type(node).__name__
        raise UsageError(f"times (--times) holds {keys}; allowed are exactly the keys {', '.join(sorted(KEYS))}")
    try:
        return PrecisionChoice(
            tuple(map(_name, node["layers"])),
            tuple(map(_name, node["precisions"])),
            tuple(tuple(map(_number, row)) for row in node["seconds"]),
            tuple(tuple(tuple(map(_number, row)) for row in place) for place in node["switch_seconds"]),
        )
    except TypeError as error:
        raise UsageError(
            f"times (--times) cannot be read: {error}; allowed are lists of names under layers and precisions, of "
            "numbers under seconds, and of lists of numbers under switch_seconds"
        ) from None


def _read(path: Path) -> Any:
    if not path.is_file():
        raise UsageError(f"times (--times) is {path}, where there is no file; give a JSON file")
    if path.stat().st_size > MOST_BYTES:
        raise UsageError(f"times (--times) is {path}, which has more than the {MOST_BYTES:,} bytes that are read")
    try:
        return strict_json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"times (--times) is {path}, which is no JSON ({error})") from None


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{value!r} is no name")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return float(value)
