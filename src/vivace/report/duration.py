"""Durations as people write them: "90s", "5m", "1h30m"."""

from __future__ import annotations

import math
import re

from vivace.core.errors import UsageError

_PATTERN = re.compile(r"(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m)?(?:(?P<s>\d+(?:\.\d+)?)s)?")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
LONGEST_SECONDS = 30 * 24 * 3600.0


def parse_duration(text: str | int | float) -> float:
    """Seconds. Takes hours, minutes and seconds in this order, each with its letter; a bare number is seconds.

    Raises UsageError for anything else, for zero and for more than 30 days.

    >>> parse_duration("1h30m")
    5400.0
    >>> parse_duration("90s") == parse_duration("1.5m") == parse_duration(90)
    True
    """
    seconds = _seconds(text)
    if seconds is None or not 0 < seconds <= LONGEST_SECONDS:
        raise UsageError(
            f"the duration {text!r} cannot be used; give a time above zero and up to 30 days, such as 90s, 5m or 1h30m"
        )
    return seconds


def show_duration(seconds: float) -> str:
    """A duration for people, to the second from one second on.

    >>> show_duration(5400), show_duration(83), show_duration(0.25)
    ('1h30m', '1m23s', '0.25s')
    """
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 1:
        return f"{max(seconds, 0.0):.2g}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{count}{unit}" for count, unit in ((hours, "h"), (minutes, "m"), (rest, "s")) if count]
    return "".join(parts)


def _seconds(text: str | int | float) -> float | None:
    if isinstance(text, int | float):
        return float(text) if not isinstance(text, bool) else None
    plain = text.strip().lower()
    match = _PATTERN.fullmatch(plain)
    if match and plain:
        return sum(float(count) * _UNITS[unit] for unit, count in match.groupdict().items() if count)
    return float(plain) if re.fullmatch(r"\d+(\.\d+)?", plain) else None
