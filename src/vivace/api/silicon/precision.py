"""Bits as a user gives them on the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vivace.core.errors import UsageError

_LAYER = re.compile(r"(?P<name>[^=]+)=(?P<weights>\d+)/(?P<activations>\d+)")


def layer_bits_of(layers: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Bits of layers given as NAME=WEIGHTS/ACTIVATIONS. Raises UsageError for anything else.

    >>> layer_bits_of(["head=4/6"])
    {'head': (4, 6)}
    """
    named = {}
    for text in layers:
        match = _LAYER.fullmatch(text.strip())
        if match is None:
            raise UsageError(f"--layer-bits received {text!r}; allowed is NAME=WEIGHTS/ACTIVATIONS, such as head=4/8")
        named[match["name"]] = (int(match["weights"]), int(match["activations"]))
    return named
