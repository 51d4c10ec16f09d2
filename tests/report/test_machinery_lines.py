"""What the terminal says of fusions, of the share of the machine's ceiling, and of overhead."""

from __future__ import annotations

import dataclasses
import json

from vivace.core.compute import Bound, Compute, Overhead, Reach
from vivace.core.layer import Fused, FusedList
from vivace.core.measurement import Interval
from vivace.core.result import Result
from vivace.report.machinery import compute_line, fused_line, overhead_line
from vivace.report.results import to_document

BEFORE = Reach(0.01, 50.0, "f32", 2, 200.0, 30.0, 0.0025, 0.25, Bound.OVERHEAD)
AFTER = Reach(0.002, 250.0, "bf16", 2, 400.0, 30.0, 0.00125, 0.625, Bound.ARITHMETIC)
COMPUTE = Compute(5e8, BEFORE, AFTER, "MEASURED by vivace doctor on this machine")

OVERHEAD = Overhead(14.2e-6, 0.31e-6, "onnx", 11.8e-6, Interval(0.83, 0.8, 0.86))


def test_the_share_is_told_with_its_ceiling_and_bound() -> None:
    assert compute_line(COMPUTE) == (
        "compute: 50 -> 250 GFLOP/s, 62% of the ceiling (400 GFLOP/s bf16, 2 threads), bound by arithmetic"
    )


def test_thousands_are_written_out() -> None:
    fast = dataclasses.replace(AFTER, gflops=1210.0, ceiling_gflops=1834.6)

    line = compute_line(dataclasses.replace(COMPUTE, winner=fast))

    assert line.startswith("compute: 50 -> 1,210 GFLOP/s, 62% of the ceiling (1,835 GFLOP/s bf16")


def test_a_ceiling_that_was_not_measured_is_told() -> None:
    bare = dataclasses.replace(AFTER, ceiling_gflops=None, floor_seconds=None, share=None, bound=None)
    compute = dataclasses.replace(COMPUTE, winner=bare, ceilings="not measured: no time was left")

    assert compute_line(compute) == "compute: 50 -> 250 GFLOP/s; ceiling not measured: no time was left"


def test_a_share_of_operations_that_nobody_counted_is_called_predicted() -> None:
    compute = dataclasses.replace(COMPUTE, winner=dataclasses.replace(AFTER, is_counted=False))

    assert compute_line(compute).startswith("compute: 50 -> 250 GFLOP/s (PREDICTED: its operations were not counted), ")


def test_the_largest_group_is_the_example_and_what_could_not_be_listed_is_told() -> None:
    groups = (Fused("Convolution", ("conv1", "bn1", "relu")), Fused("MatMul", ("fc", "add")))

    assert fused_line(FusedList(groups)) == "fused: 2 groups, e.g. conv1+bn1+relu"
    assert fused_line(FusedList((), "Inductor's kernels are not listed")) == "fused: Inductor's kernels are not listed"
    assert fused_line(FusedList()) == "fused: nothing"
    assert fused_line(None) == ""


def test_the_document_lists_operators_with_their_layers_and_the_share(result: Result) -> None:
    fused = FusedList((Fused("Convolution", ("conv1", "relu")),), "")

    document = json.loads(to_document(dataclasses.replace(result, fused=fused, compute=COMPUTE)).to_text())

    assert document["fused"] == [{"operator": "Convolution", "layers": ["conv1", "relu"]}]
    assert document["compute"]["winner"]["share"] == 0.625
    assert document["compute"]["winner"]["bound"] == "arithmetic"
    assert document["compute"]["flops"] == 5e8


def test_a_tiny_call_is_told_beside_its_floor_and_an_empty_one_each_with_its_own_label() -> None:
    assert overhead_line(dataclasses.replace(COMPUTE, overhead=OVERHEAD)) == (
        "overhead: MEASURED 14.2 us a call, PREDICTED arithmetic floor 0.31 us (45.8x); an empty call through onnx "
        "takes MEASURED 11.8 us, 83% of a call beside it"
    )
    assert overhead_line(COMPUTE) == overhead_line(None) == ""


def test_an_empty_call_that_was_not_measured_says_why_and_no_arithmetic_gives_no_ratio() -> None:
    bare = Overhead(14.2e-6, 0.0, "aot-inductor", note="was not measured: no time was left")

    assert overhead_line(dataclasses.replace(COMPUTE, overhead=bare)) == (
        "overhead: MEASURED 14.2 us a call, PREDICTED arithmetic floor 0 us; an empty call through aot-inductor was "
        "not measured: no time was left"
    )


def test_the_document_keeps_what_was_measured_apart_from_what_was_predicted(result: Result) -> None:
    compute = dataclasses.replace(COMPUTE, overhead=OVERHEAD)

    found = json.loads(to_document(dataclasses.replace(result, compute=compute)).to_text())["compute"]["overhead"]

    assert (found["call_seconds"], found["empty_seconds"], found["predicted_floor_seconds"]) == (
        14.2e-6,
        11.8e-6,
        0.31e-6,
    )
    assert found["empty_share"] == {"value": 0.83, "low": 0.8, "high": 0.86}
