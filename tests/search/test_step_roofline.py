"""Where operators of a step stand on the roofline: bytes against known answers, and the bound of jobs that are bound by
construction, on a SIMULATED machine whose operators take what their work needs."""

from __future__ import annotations

import dataclasses
import io
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from rich.console import Console

from vivace.core.plan import Plan
from vivace.core.training.bound import Bandwidth, StepBound
from vivace.report.terminal import print_block
from vivace.report.training import diagnosis_block
from vivace.search.training.bounds import of_rows
from vivace.search.training.diagnosis import Diagnoser, diagnosis_of
from vivace.search.training.traffic import Call, Traffic, fastest
from vivace.techniques.compile.recorded_step import RecordedStep
from vivace.testing.tiny_training import job

PEAK, LAUNCH, REACHED = 100.0, 2e-6, 0.6
KNOWN = [Bandwidth(1 << 20, 100.0, 100.0), Bandwidth(1 << 24, 10.0, 5.0)]
"""Caches of a megabyte at 100 GB/s, and memory at 10, half as fast where it is mapped anew."""
TABLE, WIDE = 200_000, 64


class Table(torch.nn.Module):
    """Few rows of a huge table are looked up; its gradient and its update are of the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(TABLE, WIDE)
        self.out = torch.nn.Linear(WIDE, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.out(self.table(x))
        return found


class Chain(torch.nn.Module):
    """Operators one after the other on numbers that no cache here holds."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(6_000_000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.weight + x
        for _ in range(6):
            found = found * 1.01
        return found


def layers(*sizes: int) -> torch.nn.Module:
    return torch.nn.Sequential(*(torch.nn.Linear(a, b) for a, b in itertools.pairwise(sizes)))


def steps_of(model: torch.nn.Module, x: torch.Tensor, adam: bool, count: int = 2) -> list[list[Call]]:
    """The calls of some steps, seen by a clock that stands still."""
    optimizer = torch.optim.Adam(model.parameters()) if adam else torch.optim.SGD(model.parameters(), 0.1)
    traffic, found = Traffic(lambda: 0.0, KNOWN), []
    for _ in range(count):
        with traffic:
            optimizer.zero_grad()
            traffic.noting("forward", lambda: model(x).square().mean())().backward()
            traffic.noting("update", optimizer.step)()
        found.append(traffic.taken())
    return found


def simulated(calls: Sequence[Call], count_more: float = 1.0) -> dict[str, Any]:
    """What a diagnosis reads on a machine whose operators take a launch, and reach REACHED of what allows the longer
    time; bytes may then be counted wrongly."""
    timed = [
        dataclasses.replace(
            call,
            seconds=LAUNCH + max(call.flops / (PEAK * 1e9), call.memory_seconds) / REACHED,
            moved_bytes=call.moved_bytes * count_more,
            memory_seconds=call.memory_seconds * count_more,
        )
        for call in calls
    ]
    spent = {phase: sum(call.seconds for call in timed if call.phase == phase)
             for phase in ("forward", "backward", "update")}  # fmt: skip
    between = 1e-6 * len(calls)  # Python's
    computing = sum(spent.values()) + between
    return {
        "input_seconds": 1e-7, "forward_seconds": spent["forward"] + between, "backward_seconds": spent["backward"],
        "update_seconds": spent["update"], "overhead_share": between / computing, "steps": 2, "threads": 1,
        "flops": sum(call.flops for call in calls), "evaluate_seconds": None, "notes": [], "parameter_bytes": 0,
        "gradient_bytes": 0, "optimizer_bytes": 0, "activation_bytes": 0, "what_ifs": [], "cache": "",
        "operators": {"calls": of_rows([dataclasses.astuple(call) for call in timed]), "launch_seconds": LAUNCH,
                      "bandwidths": [dataclasses.astuple(one) for one in KNOWN]},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("model", "x", "adam", "bound", "told"),
    [
        (Table, torch.arange(8), True, StepBound.MEMORY, r"move data: 1 GB at [\d.]+ GB/s, (5\d|60)% of the band"),
        (Chain, torch.ones(1), False, StepBound.MEMORY, r"GB/s, (5\d|60)% of the bandwidth .* arithmetic needs 0%"),
        (lambda: layers(512, 1024, 512), torch.ones(512, 512), False, StepBound.COMPUTE,
         r"compute: [\d.]+ GFLOP at (5\d|60)\.?\d* GFLOP/s, (5\d|60)% of the measured ceiling"),
        (lambda: layers(*[4] * 8), torch.ones(2, 4), True, StepBound.OVERHEAD, r"no operator runs.*than their lau"),
    ],
    ids=["huge embeddings", "chain of elementwise", "wide layers", "tiny tensors"],
)  # fmt: skip
def test_jobs_that_are_bound_by_construction_are_told_rightly(
    model: Callable[[], torch.nn.Module], x: torch.Tensor, adam: bool, bound: StepBound, told: str
) -> None:
    found = diagnosis_of(simulated(fastest(steps_of(model(), x, adam)[1:])), PEAK)

    assert found.bound is bound
    assert re.search(told, found.evidence), found.evidence
    assert found.roofline is not None
    assert sum(found.roofline.seconds_by_bound.values()) == pytest.approx(found.step_seconds)
    assert found.roofline.seconds_by_bound[bound.value] > 0.5 * found.step_seconds


def waiting(seconds: float, spread: float) -> dict[str, Any]:
    """A step of tiny operators that also waits, whose waiting and computing are so sure."""
    read = simulated(fastest(steps_of(layers(*[4] * 8), torch.ones(2, 4), True)[1:]))
    computing = sum(read[f"{phase}_seconds"] for phase in ("forward", "backward", "update"))
    around = [[one / spread, one * spread] for one in (seconds * computing, computing)]
    idle = read["overhead_share"] * computing
    return {**read, "input_seconds": seconds * computing, "noise": [*around, idle]}


@pytest.mark.parametrize(
    ("seconds", "spread", "bound", "rival"),
    [
        (1.3, 1.02, StepBound.INPUT, None), (1.3, 1.5, StepBound.INPUT, StepBound.OVERHEAD),
        (0.7, 1.5, StepBound.OVERHEAD, StepBound.INPUT), (0.7, 1.02, StepBound.OVERHEAD, None),
        (9.0, 1.5, StepBound.INPUT, None),
    ],
)  # fmt: skip
def test_what_bounds_a_step_is_left_open_where_its_steps_cannot_tell(
    seconds: float, spread: float, bound: StepBound, rival: StepBound | None
) -> None:
    found = diagnosis_of(waiting(seconds, spread), PEAK)
    stream = io.StringIO()
    print_block(Console(file=stream, width=200), diagnosis_block(found))

    assert (found.bound, found.rival) == (bound, rival)
    assert ("waiting for its batch" in found.evidence) is (StepBound.INPUT in (bound, rival))
    assert (f"bound by {bound.value} or " in stream.getvalue()) is (rival is not None)
    assert ("cannot tell which" in stream.getvalue() and "these overlap" in found.evidence) is (rival is not None)


def test_steps_that_were_taken_have_the_spread_of_their_seconds() -> None:
    (waits, computes, least) = Diagnoser(job(), Plan()).read(8)["noise"]

    assert 0 < waits[0] <= waits[1] and 0 < computes[0] <= computes[1] and 0 <= least <= computes[1]


def test_evidence_that_was_counted_wrongly_is_not_told_as_a_bound() -> None:
    found = diagnosis_of(simulated(steps_of(Chain(), torch.ones(1), False)[1], count_more=5.0), PEAK)

    assert found.roofline is None and found.bound is StepBound.KERNELS
    assert "the count or the ceiling is wrong" in found.notes[0]


def test_bytes_are_those_that_each_operator_reads_and_writes() -> None:
    whole = TABLE * WIDE * 4
    calls = steps_of(Table(), torch.arange(8), adam=True)[1]
    moved = {name: max(call.moved_bytes for call in calls if call.operator == name) for name in
             ("embedding", "embedding_dense_backward", "lerp_", "addcdiv_", "sqrt", "t")}  # fmt: skip

    assert moved == {
        "embedding": 2 * 8 * WIDE * 4 + 8 * 8,  # its rows, and their numbers
        "embedding_dense_backward": whole + 8 * WIDE * 4 + 8 * 8,
        "lerp_": 3 * whole, "addcdiv_": 4 * whole, "sqrt": 2 * whole, "t": 0,
    }  # fmt: skip
    assert {call.phase for call in calls if call.operator == "addcdiv_"} == {"update"}


def test_what_was_used_just_now_comes_from_a_cache_and_what_was_long_ago_from_memory() -> None:
    one, other, held = torch.ones(25_000), torch.ones(8_000_000), torch.ones(25_000)
    traffic = Traffic(lambda: 0.0, KNOWN)
    with traffic:
        held.add_(one), held.add_(one)
        other.mul_(2.0)
        held.add_(one)

    _, hot, streamed, cold = traffic.taken()
    assert hot.memory_seconds == pytest.approx(3e5 / 100e9)
    assert streamed.memory_seconds == pytest.approx(64e6 / 10e9)
    assert cold.memory_seconds == pytest.approx(2e5 / 10e9 + 1e5 / 100e9)  # what it writes was read just before


def test_a_step_is_watched_in_its_phases_and_what_is_recorded_is_not() -> None:
    read = Diagnoser(job(), Plan()).read(2)["operators"]
    assert {row[0] for row in read["calls"]} == {"forward", "backward", "update"}
    assert sum(row[4] for row in read["calls"]) > 1000  # operations
    rates = [rate for _, rate, _ in read["bandwidths"]]
    assert rates == sorted(rates, reverse=True) and rates[-1] > 0

    assert Diagnoser(job(), Plan((RecordedStep(),))).read(2, flops=1.0)["operators"]["calls"] == []


def test_the_evidence_fits_a_terminal() -> None:
    calls = steps_of(Table(), torch.arange(8), adam=True)[1]
    calls.append(Call("backward", "mkldnn_rnn_layer_backward", 0.0, 1e3, 1e9, 0.1))
    found = diagnosis_of(simulated(calls), PEAK)
    stream = io.StringIO()
    print_block(Console(file=stream, width=80), diagnosis_block(found))

    told = stream.getvalue()
    assert all(len(line) <= 80 for line in told.splitlines())
    assert any(line.startswith("  mkldnn_rnn_layer_…") for line in told.splitlines())
    table = told[told.index("operators of") : told.index("MFLOP")].splitlines()[1:-1]
    assert all(len(line.split()) >= 8 for line in table)  # none of them folds
    assert any(line.startswith("optimizer") and line.rstrip().endswith("memory") for line in told.splitlines())
