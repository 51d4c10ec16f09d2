"""The schedule: when each element of a design comes and goes, cycle by cycle, worked out without running anything.

For one sample that meets an idle design, whose input never pauses and whose output is always taken. With N steps a
window, groups of lanes that give P_1, P_2, ... outputs, D = ISSUE_TO_DRAIN and E the cycles of rounding:

    issue(g)  = max(start(g) + N - 1, issue(g - 1) + D + P_(g-1))     the last step of group g
    start(g)  = issue(g - 1) + 2, or when the row of the map that it needs has come
    output(g, i) = issue(g) + D + E + i                               its i-th output, i from 0

so a linear layer whose last input comes in cycle t gives its last output in
t + 1 + (groups - 1) * max(N + 1, P + D) + D + E + P_last - 1. An unrolled one of L levels gives output i in
t + 2 + L + E + i. The RTL must agree to the cycle.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from vivace.hardware.graph.integer import Array, IntegerGraph
from vivace.hardware.rtl.plan import (
    ISSUE_TO_DRAIN,
    JOIN_CYCLES,
    Adders,
    Engine,
    Join,
    Plan,
    Pointwise,
    Unrolled,
    plan_of,
)

FREE_CYCLES = 4
"""From the issue of a row's last step until its space can be written."""
QUEUE_CYCLES = 2
"""From an element that enters a queue to its coming out."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Cycles of a design. `latency` is from the first input of a sample to its last output, both counted; `interval`
    is at least how far apart samples follow each other when they come back to back; `busy` is that of each stage.

    `rows` and `depths` are how many rows a line buffer, and elements a queue, must hold so that nothing has to wait.
    """

    latency: int
    interval: int
    busy: tuple[int, ...]
    rows: dict[int, int]
    depths: dict[int, tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class _Run:
    """When a stage's outputs are there, when it frees space (cycle, rows), and how long it is busy with a sample."""

    outputs: Array
    freed: list[tuple[int, int]]
    busy: int


def schedule(plan: Plan) -> Schedule:
    """The schedule of a plan, for line buffers and queues that never make anyone wait."""
    times = [np.arange(plan.graph.input.elements)]
    busy: list[int] = []
    rows: dict[int, int] = {}
    depths: dict[int, tuple[int, int]] = {}
    for stage in plan.stages:
        arrivals = [times[source] for source in stage.sources]
        match stage.unit:
            case Engine() as engine:
                found = _engine(engine, arrivals[0])
                given = stage.sources == (0,) and len(plan.readers(0)) == 1
                rows[stage.number] = _rows(engine, arrivals[0], found, given)
            case Join():
                found = _join(arrivals)
                depths[stage.number] = (_depth_needed(arrivals[0], found), _depth_needed(arrivals[1], found))
            case Unrolled() as unit:
                found = _unrolled(unit, arrivals[0])
            case Pointwise():
                found = _Run(arrivals[0] + JOIN_CYCLES, [], len(arrivals[0]))
        times.append(found.outputs)
        busy.append(found.busy)
    return Schedule(int(times[-1][-1]) + 1, max(busy), tuple(busy), rows, depths)


def roomy(graph: IntegerGraph, lanes: Mapping[int, int], unrolled: Adders | None = None) -> tuple[Plan, Schedule]:
    """The plan of a graph with line buffers and queues large enough for its schedule, and that schedule."""
    found = schedule(plan_of(graph, lanes, unrolled=unrolled))
    return plan_of(graph, lanes, found.rows, found.depths, unrolled), found


def engine_cycles(engine: Engine) -> int:
    """Cycles that an engine is busy with one sample, as though its inputs were all there."""
    place = sum(max(engine.steps + 1, before + ISSUE_TO_DRAIN) for before in engine.lane_groups)
    return max(place * engine.value.shape[1] * engine.value.shape[2], engine.source.elements)


def _engine(engine: Engine, arrivals: Array, most: int | None = None) -> _Run:
    """When the outputs of the first `most` rows come, all where nothing is said."""
    groups, steps = engine.lane_groups, engine.steps
    rows, columns = engine.value.shape[1:]
    rows = min(rows, most or rows)
    outputs, freed = [], []
    start, issue, before = 0, -(10**9), 0
    for row in range(rows):
        if not engine.is_stream:
            last = (engine.last_needed_row(row) + 1) * engine.row_elements - 1
            start = max(start, int(arrivals[last]) + 1)
        for place in range(columns * len(groups)):
            count = groups[place % len(groups)]
            ready = start + steps - 1
            if engine.is_stream and place == 0:
                ready = max(ready, int((arrivals + np.arange(len(arrivals) - 1, -1, -1)).max()) + 1)
            issue = max(ready, issue + ISSUE_TO_DRAIN + before)
            start, before = issue + 2, count
            outputs.append(issue + ISSUE_TO_DRAIN + engine.cycles_to_output + np.arange(count))
        released = engine.first_needed_row(row + 1) - engine.first_needed_row(row)
        freed.append((issue + FREE_CYCLES, released))
    return _Run(np.concatenate(outputs), freed, engine_cycles(engine))


def _unrolled(unit: Unrolled, arrivals: Array) -> _Run:
    first = int(arrivals[-1]) + 2 + unit.graph.depth + unit.cycles_to_output
    busy = max(len(arrivals) + unit.graph.depth + 1, unit.lanes)
    return _Run(first + np.arange(unit.lanes), [], busy)


def _join(arrivals: list[Array]) -> _Run:
    there = np.maximum(arrivals[0], arrivals[1]) + QUEUE_CYCLES
    places = np.arange(len(there))
    met = np.maximum.accumulate(there - places) + places
    return _Run(met + JOIN_CYCLES, [], len(met))


def _rows(engine: Engine, arrivals: Array, found: _Run, given: bool) -> int:
    """Rows of the line buffer with which nothing comes later than in `found`.

    Where the host gives the inputs (`given`), it may have to wait, as long as that delays no row of outputs; a stage
    that waits would also wait longer for its own inputs, so behind another stage nobody waits at all.
    """
    most = _rows_needed(engine, arrivals, found.freed)
    if not given or engine.is_stream:
        return most
    fewer = (rows for rows in range(engine.rows, most) if np.array_equal(_starved(engine, rows), found.outputs))
    return next(fewer, most)


def _starved(engine: Engine, rows: int) -> Array:
    """When the outputs come if the host gives an element a cycle, but waits where `rows` rows are full."""
    capacity, gone, events = rows * engine.row_elements, [0], [0]
    arrivals = np.empty(0, np.int64)
    done = 0
    for row in range(engine.value.shape[1]):
        wanted = (engine.last_needed_row(row) + 1) * engine.row_elements
        places = np.arange(done, wanted)
        free = np.array(events)[np.minimum(np.searchsorted(gone, places - capacity + 1), len(gone) - 1)]
        before = int(arrivals[-1]) if done else -1
        came = np.maximum.accumulate(np.maximum(free, before + 1 + places - done) - places) + places
        arrivals = np.concatenate([arrivals, came])
        done = wanted
        part = _engine(engine, arrivals, row + 1)
        cycle, released = part.freed[-1]
        gone.append(gone[-1] + released * engine.row_elements)
        events.append(cycle)
    return part.outputs


def _rows_needed(engine: Engine, arrivals: Array, freed: list[tuple[int, int]]) -> int:
    """Rows that are held at most: what has come, less what was freed before."""
    cycles = np.array([cycle for cycle, _ in freed])
    gone = np.concatenate([[0], np.cumsum([rows for _, rows in freed])])
    held = np.arange(1, len(arrivals) + 1) - gone[np.searchsorted(cycles, arrivals)] * engine.row_elements
    return math.ceil(int(held.max()) / engine.row_elements) + (1 if engine.source.shape[1] > 1 else 0)


def _depth_needed(arrivals: Array, found: _Run) -> int:
    taken = found.outputs - JOIN_CYCLES
    held = np.arange(1, len(arrivals) + 1) - np.searchsorted(taken, arrivals)
    return int(held.max()) + 4
