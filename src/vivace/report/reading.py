"""Reading back what a run wrote, from its folder or by the file's own path, with errors that say what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError

from vivace.core.errors import UsageError
from vivace.report.results import QUANTUM, RESULTS, SCHEMA_VERSION, ResultDocument
from vivace.report.training import RUN, TrainingDocument

if TYPE_CHECKING:
    from vivace.report.quantum_page.document import QuantumDocument

Document: TypeAlias = "ResultDocument | TrainingDocument | QuantumDocument"
MAX_RESULT_BYTES = 256 << 20
D = TypeVar("D", bound=BaseModel)
WRITERS = {
    RESULTS: f"the {RESULTS} that `vivace optimize` wrote",
    RUN: f"the {RUN} of a training",
    QUANTUM: f"the {QUANTUM} that `vivace quantum` wrote",
}


def read_run(run: Path) -> Document:
    """The document of a run. `run` is the folder of an artifact, of a training or of a quantum run, or the file in it:
    results.json, run.json or quantum.json.

    Raises UsageError when there is none, when it cannot be read, and for a file of a newer schema.
    """
    path = (
        next((run / name for name in (RESULTS, RUN, QUANTUM) if (run / name).is_file()), run) if run.is_dir() else run
    )
    if not path.is_file():
        raise UsageError(
            f"RUN is {run}, where there is no {RESULTS}, no {RUN} and no {QUANTUM}; give the folder that `vivace "
            "optimize --out`, `vivace train --out` or `vivace quantum --out` wrote, or the path of one of these files"
        )
    if path.stat().st_size > MAX_RESULT_BYTES:
        raise UsageError(f"{path} has {path.stat().st_size:,} bytes; a {path.name} has at most {MAX_RESULT_BYTES:,}")
    text = path.read_bytes()
    if path.name == QUANTUM or _has_key(text, "simulations"):
        return read_quantum(text, str(path))
    return (
        read_training(text, str(path))
        if path.name == RUN or _has_key(text, "diagnosis")
        else read_text(text, str(path))
    )


def read_quantum(text: str | bytes, where: str = QUANTUM) -> QuantumDocument:
    """The quantum run that a text holds; `where` names it in errors. Raises UsageError as `read_run` does."""
    from vivace.report.quantum_page.document import QuantumDocument  # needs numpy, which other runs do not

    return _read(text, where, QuantumDocument, WRITERS[QUANTUM])


def read_text(text: str | bytes, where: str = RESULTS) -> ResultDocument:
    """The result that a text holds; `where` names it in errors. Raises UsageError as `read_run` does."""
    return _read(text, where, ResultDocument, WRITERS[RESULTS])


def read_training(text: str | bytes, where: str = RUN) -> TrainingDocument:
    """The training that a text holds; `where` names it in errors. Raises UsageError as `read_run` does."""
    return _read(text, where, TrainingDocument, WRITERS[RUN])


def _read(text: str | bytes, where: str, kind: type[D], writer: str) -> D:
    try:
        node = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is no JSON ({error}); give {writer}") from None
    _check_schema(node, where, writer)
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the document"
        raise UsageError(
            f"{where} is not a result of schema {SCHEMA_VERSION}: {place}: {first['msg']}; it is damaged, of another "
            "verb, or from another version of Vivace"
        ) from None


def _has_key(text: bytes, key: str) -> bool:
    """Whether a file of another name holds a document of the kind that alone has this key."""
    try:
        node: Any = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(node, dict) and key in node


def _check_schema(node: object, where: str, writer: str) -> None:
    version = node.get("schema_version") if isinstance(node, dict) else None
    if not isinstance(version, int):
        raise UsageError(f"{where} is not a result: it has no schema_version; give {writer}")
    if version > SCHEMA_VERSION:
        raise UsageError(
            f"{where} is of schema {version}, and this version of Vivace reads up to {SCHEMA_VERSION}; install a newer "
            "Vivace, or make the run again with this one"
        )
