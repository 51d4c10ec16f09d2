"""Small changes to files and JSON documents, chosen by a source of randomness, which may be Hypothesis's."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

HOSTILE_VALUES = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 1e308, -0.5, "", "0", "\ud800", "../../x", "a" * 5000, [], {},
    [[]], [None], {"kind": "tensor"}, {"kind": "record", "type_name": "subprocess:Popen", "keys": [], "items": []},
)  # fmt: skip
HOSTILE_TEXTS = (b"NaN", b"-Infinity", b"1e999", b"[" * 3000, b"{" * 3000, b'{"a":1,"a":2}', b"-1", b"9" * 400, b"\x00")
HOSTILE_BYTES = (b"\xff" * 8, b"\x00" * 8, b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"PK\x03\x04", b"../", b"\x80\x04")


def mutated_json(document: Any, random: Random) -> Any:
    """The document with one node replaced, removed, doubled, renamed or moved elsewhere."""
    document = copy.deepcopy(document)
    places = _places(document)
    if not places:
        return random.choice(HOSTILE_VALUES)
    parent, key = random.choice(places)
    act = random.randrange(5)
    if act == 0 and isinstance(parent, dict):
        del parent[key]
    elif act == 1 and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    elif act == 2:
        other, there = random.choice(places)
        parent[key] = copy.deepcopy(other[there])
    elif act == 3 and isinstance(parent, dict):
        parent[str(random.choice(HOSTILE_VALUES))] = parent.pop(key)
    else:
        parent[key] = copy.deepcopy(random.choice(HOSTILE_VALUES))
    return document


def mutated_bytes(data: bytes, random: Random) -> bytes:
    """The bytes with one place flipped, overwritten, cut out, doubled or filled in, or without their end."""
    if not data:
        return random.choice(HOSTILE_BYTES)
    start = random.randrange(len(data))
    end = min(len(data), start + random.choice((1, 2, 4, 8, 64, 1024)))
    act = random.randrange(7)
    if act == 0:
        return data[:start] + bytes([data[start] ^ (1 << random.randrange(8))]) + data[start + 1 :]
    if act == 1:
        return data[:start]
    if act == 2:
        return data[:start] + data[end:]
    if act == 3:
        return data[:end] + data[start:]
    if act == 4:
        return data[:start] + random.choice(HOSTILE_TEXTS) + data[end:]
    filling = random.choice(HOSTILE_BYTES)
    return data[:start] + filling + data[start + len(filling) :]


def mutated_text(data: bytes, random: Random) -> bytes:
    """A JSON text changed as a document, several times over, or as bytes."""
    if random.randrange(4) == 0:
        return mutated_bytes(data, random)
    document = json.loads(data)
    for _ in range(random.randrange(1, 4)):
        document = mutated_json(document, random)
    return json.dumps(document).encode()


def _places(document: Any) -> list[tuple[Any, Any]]:
    """Every node as its parent and the key that it stands under."""
    found: list[tuple[Any, Any]] = []
    pending = [document]
    while pending:
        node = pending.pop()
        keys: Any = node.keys() if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        found += [(node, key) for key in keys]
        pending += [node[key] for key in keys]
    return found
