"""Matrices with rows and columns exchanged, for vectors of every width."""

from __future__ import annotations

import ctypes

import pytest
import torch

from vivace.codegen.build import flags_for, library
from vivace.codegen.threads import head
from vivace.codegen.tiles import Vector
from vivace.codegen.turning import turned
from vivace.devices import machine

HERE = machine.detect()
pytestmark = pytest.mark.skipif(not HERE.cxx_compiler, reason="generated code needs a C++ compiler: install g++")
ENTRY = """
extern "C" void turn(const float *from, long step, float *to, long line, long rows, long columns) {
  turned(from, step, to, line, rows, columns);
}
"""


@pytest.mark.parametrize("shuffles", [1, 0], ids=["shuffles", "older compilers"])
@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_every_element_changes_its_place(lanes: int, shuffles: int) -> None:
    vector = Vector(lanes, 16)
    flags = [*flags_for(HERE.architecture, 4), f"-DHAS_SHUFFLES={shuffles}"]
    built = library(head(vector, 1) + turned(vector) + ENTRY, str(HERE.cxx_compiler), flags)
    for rows, columns in [(lanes, lanes), (3 * lanes + 1, 2 * lanes), (2 * lanes, 3 * lanes + 5), (1, 7), (7, 1)]:
        step, line = columns + 3, rows + 2
        given, to = torch.randn(rows, step), torch.full((columns, line), -5.0)

        built.turn(
            ctypes.c_void_p(given.data_ptr()), ctypes.c_long(step), ctypes.c_void_p(to.data_ptr()),
            ctypes.c_long(line), ctypes.c_long(rows), ctypes.c_long(columns),
        )  # fmt: skip

        assert torch.equal(to[:, :rows], given[:, :columns].t())
        assert (to[:, rows:] == -5.0).all()  # what lies beside it is left alone
