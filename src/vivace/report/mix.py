"""The lines on calls that come in several shapes: how often each does, and what it takes before and after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.text import Text

from vivace.core.result import Result
from vivace.report.layout import line, short
from vivace.report.wording import show_milliseconds

MOST_SHAPES = 3


def mix_lines(result: Result) -> Iterator[Text]:
    """What the times are means over, then the most frequent shapes; nothing where calls come in one shape."""
    mix = result.conditions.get("mix")
    if not isinstance(mix, list):
        return
    pairs = zip(result.comparison.baseline.shape_seconds, result.comparison.candidate.shape_seconds, strict=True)
    shapes = sorted(zip(mix, pairs, strict=True), key=lambda entry: -entry[0]["weight"])
    yield line(f"mix of {len(shapes)} shapes, times are means by their weights; each shape's own median ms:")
    yield from (short(f"  {_shape(entry, *seconds)}") for entry, seconds in shapes[:MOST_SHAPES])
    if len(shapes) > MOST_SHAPES:
        yield line(f"  and {len(shapes) - MOST_SHAPES} more (results.json lists all)")


def _shape(entry: Mapping[str, object], before: float, after: float) -> str:
    return (
        f"{entry['weight']:.0%} {entry['shape']}: {show_milliseconds(before)} -> {show_milliseconds(after)}, MEASURED"
    )
