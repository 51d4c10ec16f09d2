"""What all syntheses share when they are told: fields of their documents, how long they took, what to do if refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from vivace.hardware.result import Status
from vivace.report.document import JsonDocument
from vivace.report.duration import show_duration


class SiliconDocument(JsonDocument):
    """results.json of a synthesis for any kind of chip. `seconds` is what each step took here."""

    schema_version: Literal[1] = 1
    name: str
    chip: str
    seconds: dict[str, float]
    notes: list[str]
    conditions: dict[str, str]
    out: str | None


def took(seconds: Mapping[str, float]) -> str:
    """How long each step took, in a line."""
    return "took " + ", ".join(f"{name} {show_duration(taken)}" for name, taken in seconds.items())


def after_refusal(status: Status) -> str:
    """What to do where integers were refused; empty where they were not."""
    if status is Status.REFUSED:
        return (
            "next: give more bits (--weight-bits, --activation-bits up to 8), a larger budget (--max-drop), or train "
            "the network with fake quantization"
        )
    if status is Status.UNCERTIFIED:
        return "next: give more labelled data, or accept the point estimate with --gate point"
    return ""
