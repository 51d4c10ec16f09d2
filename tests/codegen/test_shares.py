"""Scores made shares, sums and ranges of lines, against float64."""

from __future__ import annotations

import ctypes
import math

import pytest
import torch

from vivace.codegen import functions, lines
from vivace.codegen.build import flags_for, library
from vivace.codegen.shares import shares
from vivace.codegen.threads import head
from vivace.codegen.tiles import Vector
from vivace.devices import machine

HERE = machine.detect()
pytestmark = pytest.mark.skipif(not HERE.cxx_compiler, reason="generated code needs a C++ compiler: install g++")
SIZES = (1, 7, 16, 33, 100)


@pytest.fixture(scope="module", params=[(4, 1), (8, 1), (16, 1), (16, 0)], ids=str)
def built(request: pytest.FixtureRequest) -> tuple[ctypes.CDLL, int]:
    lanes, shuffles = request.param
    vector, flags = Vector(lanes, 16), [*flags_for(HERE.architecture, 4), f"-DHAS_SHUFFLES={shuffles}"]
    entries = "\n".join(
        f'extern "C" void of_{size}(float *s, long rows) {{ shares<{size}, {line(size, lanes)}>(s, rows); }}'
        for size in SIZES
    )
    entries += "\n".join(
        f'extern "C" void line_{size}(const float *p, float *to) {{ '
        f"const Range r = line_range<{size}>(p); to[0] = line_sum<{size}>(p); to[1] = line_squares<{size}>(p); "
        f"to[2] = r.low; to[3] = r.high; to[4] = r.odd; }}"
        for size in SIZES
    )
    source = head(vector, 1) + functions.TEXT + shares(vector) + lines.TEXT + entries
    return library(source, str(HERE.cxx_compiler), flags), lanes


def line(size: int, lanes: int) -> int:
    return -(-size // lanes) * lanes


def made(built: tuple[ctypes.CDLL, int], scores: torch.Tensor) -> torch.Tensor:
    rows, size = scores.shape
    memory = torch.full((rows, line(size, built[1])), 1e30)  # what lies beyond a row's scores is in no share
    memory[:, :size] = scores
    built[0][f"of_{size}"](ctypes.c_void_p(memory.data_ptr()), ctypes.c_long(rows))
    return memory[:, :size]


@pytest.mark.parametrize("size", SIZES)
def test_rows_add_up_to_one_as_softmax_has_it(built: tuple[ctypes.CDLL, int], size: int) -> None:
    for spread in (0.1, 5.0, 60.0):
        scores = spread * torch.randn(19, size)  # eight together, and some alone
        found = made(built, scores)
        assert (found - scores.double().softmax(1)).abs().max() < 4e-7


def test_a_row_that_sees_nothing_has_no_shares_and_what_is_no_number_stays_so(built: tuple[ctypes.CDLL, int]) -> None:
    scores = torch.randn(9, 33)
    scores[0], scores[1, 3:], scores[2, 5], scores[8, 32] = -torch.inf, -torch.inf, torch.nan, torch.nan

    found = made(built, scores)

    assert (found[0] == 0).all()
    assert torch.allclose(found[1], scores[1].softmax(0), atol=1e-6)
    assert found[2].isnan().all()
    assert found[8].isnan().all()
    assert torch.allclose(found[3:8], scores[3:8].softmax(1), atol=1e-6)


def told(built: tuple[ctypes.CDLL, int], given: torch.Tensor) -> torch.Tensor:
    found = torch.empty(5)
    built[0][f"line_{len(given)}"](ctypes.c_void_p(given.data_ptr()), ctypes.c_void_p(found.data_ptr()))
    return found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("moved", [-9.0, 0.0, 9.0])
def test_lines_are_added_up_and_their_ends_found(built: tuple[ctypes.CDLL, int], size: int, moved: float) -> None:
    line = torch.randn(size) + moved
    exact = line.double()

    total, squares, low, high, odd = told(built, line).tolist()

    assert total == pytest.approx(float(exact.sum()), rel=1e-6, abs=1e-5)
    assert squares == pytest.approx(float(exact.square().sum()), rel=1e-6)
    assert (low, high, odd) == (min(0.0, line.min().item()), max(0.0, line.max().item()), 0.0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_number_of_a_line_that_is_none_is_told(built: tuple[ctypes.CDLL, int], size: int, wrong: float) -> None:
    for place in {0, size // 2, size - 1}:
        line = torch.randn(size)
        line[place] = wrong
        assert math.isnan(told(built, line)[4])
