"""`vivace measure A B`: which of two is faster, by how much, and how sure that is."""

from __future__ import annotations

from typing import Annotated

import typer

from vivace.cli.options import Json, Quiet, Time
from vivace.cli.output import document_only, emit, out_console, progress_shown
from vivace.core.errors import Cancelled

_ARM = "path/to/file.py:name, a model file (.onnx, .pt2, .keras), or an artifact"


def measure(
    a: Annotated[str, typer.Argument(help=f"The baseline: {_ARM}.", metavar="A")],
    b: Annotated[str, typer.Argument(help="The candidate: the same kinds.", metavar="B")],
    time: Time = "1m",
    trust: Annotated[bool, typer.Option("--trust", help="Load artifacts that hold native code.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare two models or artifacts: paired and interleaved, each in its own fresh process.

    The speed-up is A's time divided by B's: above 1, B is faster. The exit code is 0 whatever the verdict.

    Examples:

      vivace measure work.py:digits fast

      vivace measure old-artifact new-artifact --json
    """
    from vivace.report.duration import parse_duration
    from vivace.report.results import comparison_document
    from vivace.report.terminal import comparison_block, print_block

    parse_duration(time)
    with document_only(as_json), progress_shown(quiet) as progress:
        from vivace.api import measure as compare

        try:
            comparison = compare(a, b, time=time, trust=trust, progress=progress)
        except KeyboardInterrupt:
            raise Cancelled("cancelled; nothing was changed") from None
    if as_json:
        emit(comparison_document(comparison, a, b).to_text())
    else:
        print_block(out_console(), comparison_block(comparison, a, b))
