"""Exponentials and their kin as generated code has them, against float64."""

from __future__ import annotations

import ctypes
import math

import pytest
import torch

from vivace.codegen import functions, lines
from vivace.codegen.build import flags_for, library
from vivace.codegen.threads import head
from vivace.codegen.tiles import vector_of
from vivace.devices import machine

HERE = machine.detect()
pytestmark = pytest.mark.skipif(not HERE.cxx_compiler, reason="generated code needs a C++ compiler: install g++")
EXPECTED = {
    "fast_exp": torch.exp,
    "fast_tanh": torch.tanh,
    "fast_erf": torch.erf,
    "fast_sigmoid": torch.sigmoid,
    "gelu": torch.nn.functional.gelu,
    "silu": torch.nn.functional.silu,
}

OTHERS = """
static inline float as_byte(float x) { return low_byte(x + TO_WHOLE); }
extern "C" void rounded(const float *x, short *y) { rounded_lines(x, 37, y, 40, 5, 37); }
extern "C" void paired(const float *x, int *y) { paired_lines(x, 37, y, 40, 5, 37); }
"""


@pytest.fixture(scope="module")
def built() -> ctypes.CDLL:
    loops = "\n".join(
        f'extern "C" void all_{name}(const float *x, float *y, long n) '
        f'{{ _Pragma("omp simd") for (long i = 0; i < n; i++) y[i] = {name}(x[i]); }}'
        for name in (*EXPECTED, "coarse_gelu", "as_byte")
    )
    vector = vector_of(HERE.instructions)
    source = head(vector, 1) + functions.TEXT + lines.ROUNDED + OTHERS + loops
    return library(source, str(HERE.cxx_compiler), flags_for(HERE.architecture, vector.lanes))


def of(built: ctypes.CDLL, name: str, x: torch.Tensor) -> torch.Tensor:
    y = torch.empty_like(x)
    built[f"all_{name}"](ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(y.data_ptr()), ctypes.c_long(len(x)))
    return y


@pytest.mark.parametrize("name", EXPECTED)
def test_a_function_is_as_near_as_float32_allows(built: ctypes.CDLL, name: str) -> None:
    x = torch.cat([torch.linspace(-9, 4, 200_001), torch.logspace(-20, 0, 1000), -torch.logspace(-20, 0, 1000)])
    want = EXPECTED[name](x.double())

    error, torchs = ((one.double() - want).abs().max() for one in (of(built, name, x), EXPECTED[name](x)))

    assert error <= 2 * torchs + 2.0**-23  # as the referee of rounded answers allows


def test_gelu_for_bytes_errs_by_less_than_a_step_of_them(built: ctypes.CDLL) -> None:
    x = torch.cat([torch.linspace(-9, 9, 200_001), torch.tensor([-1e6, 1e6])])

    error = (of(built, "coarse_gelu", x).double() - torch.nn.functional.gelu(x.double())).abs()

    assert error[:-2].max() < 2e-4 and error[-2:].max() == 0
    assert of(built, "gelu", x[-2:]).tolist() == [0.0, 1e6]
    assert math.isnan(of(built, "coarse_gelu", torch.tensor([math.nan]))[0])


def test_bytes_are_the_nearest_whole_numbers_and_no_others(built: ctypes.CDLL) -> None:
    x = torch.cat([torch.linspace(-300, 600, 100_003), torch.arange(-3, 259) + 0.5, torch.tensor([-4e6, 4e6])])

    assert of(built, "as_byte", x).equal(x.round().clamp(0, 255))


def test_lines_are_rounded_as_pytorch_rounds_to_bfloat16(built: ctypes.CDLL) -> None:
    x = torch.randn(5, 37)
    lines, pairs = torch.zeros(5, 40, dtype=torch.bfloat16), torch.full((3, 40, 2), 7, dtype=torch.bfloat16)

    built.rounded(ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(lines.data_ptr()))
    built.paired(ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(pairs.data_ptr()))

    wanted = x.bfloat16()
    assert lines[:, :37].equal(wanted) and not lines[:, 37:].any()
    assert pairs[:, :37, 0].equal(wanted[::2]) and pairs[:2, :37, 1].equal(wanted[1::2])
    assert not pairs[2, :37, 1].any() and bool((pairs[:, 37:] == 7).all())


def test_what_has_no_number_stays_so(built: ctypes.CDLL) -> None:
    odd = torch.tensor([math.nan, math.inf, -math.inf, 1000.0, -1000.0])

    exponentials = of(built, "fast_exp", odd).tolist()

    assert math.isnan(exponentials[0]) and exponentials[1:] == [math.inf, 0.0, math.inf, 0.0]
    assert all(math.isnan(of(built, name, odd)[0]) for name in EXPECTED)
    assert of(built, "fast_tanh", odd)[1:].tolist() == of(built, "fast_erf", odd)[1:].tolist() == [1, -1, 1, -1]
