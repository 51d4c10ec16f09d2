"""What a front and its worker tell each other on their socket: one small JSON text a message; tensors lie in arenas."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from vivace.core.errors import EnvironmentFault

LONGEST = 1 << 16
"""A socket that keeps messages apart takes them whole or not at all."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a tensor lies in an arena, and its shape."""

    offset: int
    shape: tuple[int, ...]

    def to_json(self) -> list[Any]:
        """A JSON value that `from_json` reads back."""
        return [self.offset, self.shape]

    @staticmethod
    def from_json(node: list[Any]) -> Place:
        """Read what `to_json` wrote."""
        return Place(node[0], tuple(node[1]))


@dataclasses.dataclass(frozen=True)
class Computed:
    """A worker's answer: where the outputs lie, or why there are none.

    `call_error` is what a client may read: the call was outside what the model accepts. `failure` is for the log.
    """

    outputs: tuple[Place, ...] = ()
    compute_seconds: float = 0.0
    call_error: str = ""
    failure: str = ""

    def encode(self) -> bytes:
        """As one message."""
        return _encode(
            {
                "outputs": [place.to_json() for place in self.outputs],
                "compute_seconds": self.compute_seconds,
                "call_error": self.call_error[:2000],
                "failure": self.failure[:8000],
            }
        )

    @staticmethod
    def decode(message: bytes) -> Computed:
        """Read what `encode` wrote."""
        node = json.loads(message)
        return Computed(tuple(map(Place.from_json, node.pop("outputs"))), **node)


def encode_inputs(places: list[Place]) -> bytes:
    """Where the inputs of a batch lie, as one message."""
    return _encode([place.to_json() for place in places])


def decode_inputs(message: bytes) -> list[Place]:
    """Read what `encode_inputs` wrote."""
    return [Place.from_json(node) for node in json.loads(message)]


def _encode(node: Any) -> bytes:
    text = json.dumps(node, separators=(",", ":")).encode()
    if len(text) > LONGEST:
        raise EnvironmentFault(f"a message of {len(text)} bytes between server and worker; allowed are {LONGEST}")
    return text
