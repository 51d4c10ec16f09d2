"""The artifact that `vivace.optimize` left, opened as its user would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import vivace as vv


def open_peer(arguments: Mapping[str, Any], payload: object) -> Callable[..., Any]:
    return vv.load(arguments["folder"])
