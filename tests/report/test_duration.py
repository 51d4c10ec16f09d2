"""Durations as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivace.core.errors import UsageError
from vivace.report.duration import LONGEST_SECONDS, parse_duration, show_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5400),
        ("1h30m15s", 5415),
        ("1.5h", 5400),
        ("45", 45),
        (" 2M ", 120),
        (2.5, 2.5),
    ],
)
def test_a_duration_is_read(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "m",
        "5 minutes",
        "-5m",
        "5m1h",
        "1h-2m",
        "0",
        "0s",
        "nan",
        "inf",
        "1e3",
        "900h",
        float("nan"),
        float("inf"),
        -1,
        True,
    ],
)
def test_anything_else_is_refused_with_what_is_allowed(text: str | float) -> None:
    with pytest.raises(UsageError, match="90s, 5m or 1h30m"):
        parse_duration(text)


@given(st.integers(1, int(LONGEST_SECONDS)))
def test_what_is_shown_reads_back(seconds: int) -> None:
    assert parse_duration(show_duration(seconds)) == seconds


@given(st.text(max_size=12))
def test_no_text_breaks_it(text: str) -> None:
    try:
        assert parse_duration(text) > 0
    except UsageError as error:
        assert "cannot be used" in str(error)


def test_nothing_left_and_unknown_times_are_shown() -> None:
    assert show_duration(0) == "0s"
    assert show_duration(-3) == "0s"
    assert show_duration(float("inf")) == "unknown"
