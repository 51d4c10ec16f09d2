"""Text for the page: what may not be seen is made visible, what is long is cut, numbers and units are for people."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import BaseModel

from vivace.core.measurement import Interval, Outcome

D = TypeVar("D", bound=BaseModel)
UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode's categories of control, format (bidirectional ones too), surrogate, private and line-breaking signs."""
SHORT, LONG = 34, 600
TIME_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
BYTE_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))


def visible(text: str) -> str:
    r"""The text with every sign that cannot be seen spelt out; line ends and tabs become spaces.

    Source: Boucher and Anderson, "Trojan Source", arXiv:2111.00169: what reorders text can make it read as another.

    >>> visible("a\u202eb\x00c\nd")
    'a⟨U+202E⟩b⟨U+0000⟩c d'
    """
    plain = text.replace("\r\n", " ").translate({ord(sign): " " for sign in "\n\r\t"})
    return "".join(f"⟨U+{ord(s):04X}⟩" if unicodedata.category(s) in UNSEEN else s for s in plain)


def made_visible(document: D) -> D:
    """The document with every text in it made visible, so that no figure has to think of it."""
    return type(document).model_validate(_each(document.model_dump()))


def _each(node: Any) -> Any:
    if isinstance(node, str):
        return visible(node)
    if isinstance(node, dict):
        return {_each(key): _each(value) for key, value in node.items()}
    return [_each(value) for value in node] if isinstance(node, list | tuple) else node


def cut(text: str, most: int = SHORT) -> str:
    """
    >>> cut("openvino-bfloat16", 9)
    'openvino…'
    """
    return text if len(text) <= most else f"{text[: most - 1]}…"


def number(value: float | None) -> str:
    """A number with three figures, in plain notation where that is short.

    >>> number(0.01234), number(12345.0), number(2e-7), number(math.inf), number(None)
    ('0.0123', '12,345', '2e-07', '∞', '-')
    """
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}" if size < 1e9 else f"{value:.3g}"
    return f"{value:.3g}"


def tick(value: float) -> str:
    """A tick's value, which is round already.

    >>> tick(0.1 + 0.2), tick(20000.0), tick(1e-6)
    ('0.3', '20,000', '1e-06')
    """
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.6g}"


def interval(found: Interval | None, factor: float = 1.0, unit: str = "") -> str:
    """
    >>> interval(Interval(2.0, 1.5, 3.0), unit="x")
    '2x [1.5, 3]'
    """
    if found is None:
        return "-"
    value, low, high = (number(v * factor) for v in (found.value, found.low, found.high))
    return f"{value}{unit} [{low}, {high}]"


def time_unit(seconds: Iterable[float]) -> tuple[float, str]:
    """What seconds are multiplied by, and the unit, so that the largest of them is 1 or more.

    >>> time_unit([0.0002, 0.0013])
    (1000.0, 'ms')
    """
    size, unit = _unit(TIME_UNITS, seconds)
    return round(1 / size, 9), unit


def byte_unit(counts: Iterable[float]) -> tuple[float, str]:
    """The same of bytes."""
    size, unit = _unit(BYTE_UNITS, counts)
    return 1 / size, unit


def show_seconds(seconds: float | None) -> str:
    """
    >>> show_seconds(0.00123), show_seconds(None)
    ('1.23 ms', '-')
    """
    if seconds is None:
        return "-"
    factor, unit = time_unit([seconds])
    return f"{number(seconds * factor)} {unit}"


def outcome_word(outcome: Outcome) -> str:
    """An outcome for people: "not faster"."""
    return outcome.value.replace("_", " ")


def plural(count: int, noun: str) -> str:
    """
    >>> plural(1, "call"), plural(2000, "call")
    ('1 call', '2,000 calls')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _unit(units: tuple[tuple[float, str], ...], values: Iterable[float]) -> tuple[float, str]:
    largest = max((value for value in values if math.isfinite(value)), default=1.0)
    return next(((size, unit) for size, unit in units if largest >= size), units[-1])
