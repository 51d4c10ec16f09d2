"""What `--plan` holds: names, techniques as reports print them, or JSON."""

from __future__ import annotations

import re
from typing import Any

from vivace.core.documents import strict_json
from vivace.core.errors import UsageError

STEP = re.compile(r"\s*(?P<name>[\w-]+)\s*(?:\((?P<settings>[^()]*)\))?\s*(?:[,+]|$)")
"""One technique, and the comma or plus after it."""
WORDS = {"True": True, "False": False, "None": None}
REMARK = "pruned but kept dense"
"""What a report adds to the settings of weights that nothing stores away."""


def plan_given(text: str) -> Any:
    """The steps of a plan, each a name or a mapping as results.json holds it; None where the text is empty.

    Raises UsageError for what cannot be read.

    >>> plan_given("bfloat16, native-step"), plan_given('["threads"]'), plan_given("")
    (['bfloat16', 'native-step'], ['threads'], None)
    >>> plan_given("torchao-static-int8 + inductor(freeze=True)")
    ['torchao-static-int8', {'technique': 'inductor', 'settings': {'freeze': True}}]
    """
    if not text:
        return None
    if not text.lstrip().startswith(("[", "{")):
        return _steps(text)
    try:
        return strict_json.loads(text)
    except ValueError as error:
        raise _unreadable(f"JSON that cannot be read ({error})") from None


def _steps(text: str) -> list[Any]:
    """The steps of a text such as `onnx-static-int8(method=entropy) + threads(count=1) + onnx-runtime`."""
    steps: list[Any] = []
    place = 0
    while place < len(text):
        step = STEP.match(text, place)
        if step is None:
            raise _unreadable(repr(text[place:].strip()))
        settings = _settings(step["settings"] or "")
        steps.append({"technique": step["name"], "settings": settings} if settings else step["name"])
        place = step.end()
    return steps


def _settings(text: str) -> dict[str, Any]:
    """The settings between a technique's brackets."""
    found: dict[str, Any] = {}
    for part in re.split("[,;]", text):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if equals and key and value:
            found[key] = _value(value)
        elif part.strip() not in ("", REMARK):
            raise _unreadable(f"the setting {part.strip()!r}")
    return found


def _value(text: str) -> Any:
    """A number or a word of Python or JSON; else the text itself."""
    if text in WORDS:
        return WORDS[text]
    try:
        return strict_json.loads(text)
    except ValueError:
        return text


def _unreadable(received: str) -> UsageError:
    return UsageError(
        f"--plan received {received}; give names, such as threads,openvino, or what a report prints, such as "
        "'threads(count=1) + inductor(freeze=True)', or what results.json or run.json holds under `plan`"
    )
