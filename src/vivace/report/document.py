"""What every document that a run writes has: strict fields, and its text as JSON."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict


class JsonDocument(BaseModel):
    """A document of which nothing is left out when it is written, and nothing unknown is read back."""

    # an infinite ratio (equal outputs) is written as "Infinity", which reads back; JSON has no number for it
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    def to_text(self) -> str:
        """JSON text, indented, with a line end."""
        return self.model_dump_json(indent=2) + "\n"


D = TypeVar("D", bound=JsonDocument)


def document_from(kind: type[D], result: Any, **own: Any) -> D:
    """A document of this kind: each of its fields from the result's attribute of that name, but for those in `own`, and
    for those with a default that the result does not have. `out` is written as text."""
    names = [name for name in kind.model_fields if name not in own and hasattr(result, name)]
    fields = {name: getattr(result, name) for name in names} | own
    if fields.get("out") is not None:
        fields["out"] = str(fields["out"])
    return kind(**fields)
