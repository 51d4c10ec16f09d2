"""JSON from outside, read strictly: what two readers could understand in two ways is refused."""

from __future__ import annotations

import json
import math
from typing import Any, BinaryIO

MOST_BYTES = 16 << 20
DEEPEST = 64
"""Levels of nesting; what Vivace writes has fewer than twenty."""


def load(file: BinaryIO) -> Any:
    """The value of a JSON document in UTF-8. Raises ValueError for one above MOST_BYTES, and as `loads` does."""
    data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"it is longer than the {MOST_BYTES} bytes that are allowed")
    return loads(data.decode("utf-8"))


def loads(text: str) -> Any:
    """The value of a JSON text. Raises ValueError for what is no JSON, for a key that is given twice, for NaN, infinite
    and overflowing numbers, for text that has no UTF-8 form, and for more than DEEPEST levels of nesting.

    >>> loads('{"a": 1, "a": 2}')
    Traceback (most recent call last):
        ...
    ValueError: the key 'a' is given twice
    """
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise _too_deep() from None
    _check(value)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is given twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is no finite number")
    return number


def _check(value: Any) -> None:
    """Level by level, without a recursion that an input could exhaust."""
    level = [value]
    for _ in range(DEEPEST + 1):
        for text in (item for item in level if isinstance(item, str)):
            text.encode("utf-8")
        level = [
            inner
            for item in level
            if isinstance(item, list | dict)
            for inner in (item if isinstance(item, list) else (*item.keys(), *item.values()))
        ]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> ValueError:
    return ValueError(f"it is nested more than {DEEPEST} levels deep")
