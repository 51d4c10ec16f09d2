"""What chips send each other in a compiled program, read from the text that XLA prints of it."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_CALL = re.compile(rf"= (?P<shape>\(.*?\)|\S+) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\(")
_ARRAY = re.compile(r"\b[a-z]+(?P<bits>\d*)\w*\[(?P<shape>[\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of a kind: how many a program has, and the bytes of what one chip holds of their results."""

    kind: str
    count: int
    bytes: int


def collectives_of(text: str) -> tuple[Collective, ...]:
    """The collectives of a compiled program, largest first; one in a loop is counted once.

    >>> collectives_of("%a = f32[8,4]{1,0} all-reduce(f32[8,4]{1,0} %x), channel_id=1")
    (Collective(kind='all-reduce', count=1, bytes=128),)
    """
    counts, sizes = Counter[str](), Counter[str]()
    for match in _CALL.finditer(text):
        arrays = [_bytes(one) for one in _ARRAY.finditer(match["shape"])]
        if match["start"] and match["kind"] != "all-reduce":  # operands, results, and sometimes counters of 4 bytes
            arrays = [max(arrays)]
        counts[match["kind"]] += 1
        sizes[match["kind"]] += sum(arrays)
    return tuple(Collective(kind, counts[kind], size) for kind, size in sizes.most_common())


def _bytes(array: re.Match[str]) -> int:
    bits = int(array["bits"] or 8)  # a truth value (pred) takes a byte
    return math.prod(int(n) for n in array["shape"].split(",") if n) * bits // 8
