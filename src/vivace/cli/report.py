"""`vivace report RUN`: the HTML report of a run, again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vivace.cli.options import Json
from vivace.cli.output import emit, emit_json
from vivace.core.errors import UsageError


def report(
    run: Annotated[
        Path,
        typer.Argument(
            help="What `vivace optimize`, `train` or `quantum` wrote with --out, or the JSON file in it.",
            metavar="RUN",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Where the page goes: a file, or a folder that is there. Default: report.html in the current folder. "
            "One that is there is replaced; never inside an artifact, whose files are sealed by their digests.",
            metavar="PATH",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the HTML report of a run again: one file that opens from disk and asks for nothing from the network.

    It is the page that lies in the artifact already, or beside the trained model, written with this version of Vivace.
    Nothing is measured and the artifact stays as it is. The exit code is 0 whatever the result, 2 where RUN is none,
    and 5 where PATH cannot be written.

    Examples:

      vivace report fast

      vivace report fast/results.json --out pages/digits.html

      vivace report run --out run

      vivace report fast --json
    """
    from vivace.report.pages import headline_of, page_of
    from vivace.report.reading import read_run

    document = read_run(run)
    place = _destination(out)
    page = page_of(document)
    place.write_text(page, encoding="utf-8")
    told = headline_of(document)
    if as_json:
        kept = document.model_dump(mode="json", include={"status", "plan_name", "speedup"})
        emit_json({"schema_version": 1, "report": str(place), "headline": told, **kept, "bytes": len(page.encode())})
    else:
        emit(f"{told}\nreport: {place}")


def _destination(out: Path | None) -> Path:
    """Where the page goes. Raises UsageError for what is no place for it."""
    from vivace.artifact.manifest import MANIFEST
    from vivace.report.results import PAGE, RESULTS

    place = Path(PAGE) if out is None else out / PAGE if out.is_dir() else out
    if place.exists() and not place.is_file():
        raise UsageError(f"--out is {out}, which is neither a file nor a folder; give the path of a file")
    if not place.parent.is_dir():
        raise UsageError(f"--out is {out}, but there is no folder {place.parent}; make it first, or give another path")
    for folder in place.resolve().parents:
        if (folder / MANIFEST).is_file() and (folder / RESULTS).is_file():
            raise UsageError(
                f"the page would be written to {place}, inside the artifact {folder}, whose files are sealed by their "
                "digests; give --out PATH elsewhere (the artifact has its own page already)"
            )
    return place
