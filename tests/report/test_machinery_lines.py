"""What the terminal says of fusions and of the share of the machine's ceiling."""

from __future__ import annotations

import dataclasses
import json

from vivace.core.compute import Bound, Compute, Reach
from vivace.core.layer import Fused, FusedList
from vivace.core.result import Result
from vivace.report.machinery import compute_line, fused_line
from vivace.report.results import to_document

BEFORE = Reach(0.01, 50.0, "f32", 2, 200.0, 30.0, 0.0025, 0.25, Bound.OVERHEAD)
AFTER = Reach(0.002, 250.0, "bf16", 2, 400.0, 30.0, 0.00125, 0.625, Bound.ARITHMETIC)
COMPUTE = Compute(5e8, BEFORE, AFTER, "MEASURED by vivace doctor on this machine")


def test_the_share_is_told_with_its_ceiling_and_bound() -> None:
    assert compute_line(COMPUTE) == (
        "compute: 50 -> 250 GFLOP/s, 62% of the ceiling (400 GFLOP/s bf16, 2 threads), bound by arithmetic"
    )


def test_a_ceiling_that_was_not_measured_is_told() -> None:
    bare = dataclasses.replace(AFTER, ceiling_gflops=None, floor_seconds=None, share=None, bound=None)
    compute = dataclasses.replace(COMPUTE, winner=bare, ceilings="not measured: no time was left")

    assert compute_line(compute) == "compute: 50 -> 250 GFLOP/s; ceiling not measured: no time was left"


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
