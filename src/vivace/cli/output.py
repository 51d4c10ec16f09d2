"""Where the command line writes: results on standard output, progress and errors on standard error, JSON alone."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console

if TYPE_CHECKING:
    from vivace.report.progress import Progress


def out_console() -> Console:
    """The console for results: standard output, plain without a terminal, colourless under NO_COLOR."""
    return Console(file=sys.stdout, highlight=False, markup=False)


def error_console() -> Console:
    """The console for progress: standard error."""
    return Console(file=sys.stderr, highlight=False, markup=False)


@contextlib.contextmanager
def progress_shown(quiet: bool) -> Iterator[Progress]:
    """What tells how far a job is, on standard error; the terminal is given back in the end."""
    from vivace.report.progress import progress_on

    progress = progress_on(error_console(), quiet)
    try:
        yield progress
    finally:
        progress.done()


def emit(text: str, stream: TextIO | None = None) -> None:
    """Write one text with a line end, at once."""
    target = sys.stdout if stream is None else stream
    target.write(text if text.endswith("\n") else f"{text}\n")
    target.flush()


def emit_json(document: Mapping[str, Any]) -> None:
    """Write one JSON document on standard output. Raises ValueError for what JSON cannot hold, such as NaN."""
    emit(json.dumps(document, indent=2, allow_nan=False))


@contextlib.contextmanager
def document_only(as_json: bool) -> Iterator[None]:
    """With --json: whatever anyone prints inside, libraries and the user's own file too, goes to standard error.

    Redirects the descriptor as well, because native libraries do not print through Python.
    """
    if not as_json:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
