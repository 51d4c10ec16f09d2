"""Options that several verbs share, so that one word means and explains the same thing everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from vivace.core.documents import strict_json
from vivace.core.errors import UsageError

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


def plan_given(text: str) -> Any:
    """What `--plan` holds: JSON, or names with commas between them; None where it is empty. Raises UsageError for JSON
    that is none.

    >>> plan_given("bfloat16, native-step"), plan_given('["threads"]'), plan_given("")
    (['bfloat16', 'native-step'], ['threads'], None)
    """
    if not text:
        return None
    if not text.lstrip().startswith(("[", "{")):
        return list(split_names([text]))
    try:
        return strict_json.loads(text)
    except ValueError as error:
        raise UsageError(
            f"--plan received JSON that cannot be read ({error}); give names, such as threads,openvino, or what "
            "results.json or run.json holds under `plan`"
        ) from None
