"""Amdahl's and Gustafson's laws against their closed forms, and the serial part that measurements imply."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivace.core.errors import UsageError
from vivace.devices.scaling import Law, amdahl, fitted_serial, gustafson, speedup

SHARES = st.floats(0.0, 1.0)
COUNTS = st.integers(1, 10_000)


@given(SHARES, COUNTS)
def test_amdahl_is_never_above_the_inverse_of_the_serial_part_nor_the_count(serial: float, workers: int) -> None:
    found = amdahl(serial, workers)
    assert found <= workers * (1 + 1e-9)
    assert found * serial <= 1 + 1e-9


@given(SHARES, COUNTS)
def test_gustafson_is_at_least_amdahl(serial: float, workers: int) -> None:
    assert gustafson(serial, workers) >= amdahl(serial, workers) - 1e-9


def test_published_examples() -> None:
    """Gustafson 1988: s = 0.4% to 0.8% on 1,024 processors gave 1,021 to 1,016; Amdahl's limit of 5% is 20."""
    assert round(gustafson(0.004, 1024)) == 1020
    assert round(gustafson(0.008, 1024)) == 1016
    assert round(amdahl(0.05, 10**9)) == 20


@pytest.mark.parametrize("law", Law)
@given(serial=st.floats(0.001, 0.9))
def test_the_serial_part_is_found_again(law: Law, serial: float) -> None:
    found = fitted_serial(law, {n: speedup(law, serial, n) for n in (1, 2, 4, 8, 16)})
    assert found.value == pytest.approx(serial, abs=1e-9)


@pytest.mark.parametrize("law", Law)
def test_noise_widens_the_interval_and_the_truth_lies_in_it(law: Law) -> None:
    noise = {2: 1.01, 4: 0.99, 8: 1.012, 16: 0.988}
    found = fitted_serial(law, {n: speedup(law, 0.1, n) * off for n, off in noise.items()})
    assert found.low < 0.1 < found.high
    assert found.high - found.low > 0.001


def test_a_speedup_above_the_count_gives_no_serial_part() -> None:
    assert fitted_serial(Law.AMDAHL, {2: 2.2, 4: 4.4, 8: 9.0}).value == 0.0


@pytest.mark.parametrize("speedups", [{}, {4: 3.0}, {1: 1.0, 4: 3.0}, {2: 0.0, 4: 1.0}, {0: 1.0, 4: 3.0}])
def test_too_little_or_impossible_measurements_are_refused(speedups: dict[int, float]) -> None:
    with pytest.raises(UsageError, match="speedups"):
        fitted_serial(Law.AMDAHL, speedups)


@pytest.mark.parametrize(("serial", "workers"), [(-0.1, 2), (1.1, 2), (0.1, 0)])
def test_a_share_or_a_count_out_of_range_is_refused(serial: float, workers: float) -> None:
    with pytest.raises(UsageError, match="allowed"):
        amdahl(serial, workers)
