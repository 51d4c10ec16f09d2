"""Options that several verbs share, so that one word means and explains the same thing everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
TimeOrPreset = Annotated[
    str | None,
    typer.Option(
        "--time", help="How long it may take: 90s, 5m, 1h30m. Default: what --preset says.", metavar="DURATION"
    ),
]
Time = Annotated[str, typer.Option("--time", help="How long it may take: 90s, 5m, 1h30m.", metavar="DURATION")]


def split_names(values: Sequence[str] | None) -> tuple[str, ...]:
    """Names given apart or with commas between them.

    >>> split_names(["threads,inductor", "openvino"])
    ('threads', 'inductor', 'openvino')
    """
    return tuple(name.strip() for value in values or () for name in value.split(",") if name.strip())
