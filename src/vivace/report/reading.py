"""Reading a run's results.json back, from an artifact's folder or by its own path, with errors that say what to do."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from vivace.core.errors import UsageError
from vivace.report.results import RESULTS, SCHEMA_VERSION, ResultDocument

MAX_RESULT_BYTES = 256 << 20


def read_run(run: Path) -> ResultDocument:
    """The document of a run. `run` is an artifact's folder, or a results.json.

    Raises UsageError when there is none, when it cannot be read, and for a file of a newer schema.
    """
    path = run / RESULTS if run.is_dir() else run
    if not path.is_file():
        raise UsageError(
            f"RUN is {run}, where there is no {RESULTS}; give the folder that `vivace optimize --out` wrote, or the "
            f"path of its {RESULTS}"
        )
    if path.stat().st_size > MAX_RESULT_BYTES:
        raise UsageError(f"{path} has {path.stat().st_size:,} bytes; a {RESULTS} has at most {MAX_RESULT_BYTES:,}")
    return read_text(path.read_bytes(), str(path))


def read_text(text: str | bytes, where: str = RESULTS) -> ResultDocument:
    """The document that a text holds; `where` names it in errors. Raises UsageError as `read_run` does."""
    try:
        node = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is no JSON ({error}); give the {RESULTS} that `vivace optimize` wrote") from None
    _check_schema(node, where)
    try:
        return ResultDocument.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the document"
        raise UsageError(
            f"{where} is not a result of schema {SCHEMA_VERSION}: {place}: {first['msg']}; it is damaged, of another "
            "verb, or from another version of Vivace"
        ) from None


def _check_schema(node: object, where: str) -> None:
    version = node.get("schema_version") if isinstance(node, dict) else None
    if not isinstance(version, int):
        raise UsageError(
            f"{where} is not a result: it has no schema_version; give the {RESULTS} that `vivace optimize` wrote"
        )
    if version > SCHEMA_VERSION:
        raise UsageError(
            f"{where} is of schema {version}, and this version of Vivace reads up to {SCHEMA_VERSION}; install a newer "
            "Vivace, or make the run again with this one"
        )
