"""Attention: for each head the scores of all queries, their shares, and the values that these add up."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.fx import Node

from vivace.codegen.arrays import BOOL, FLOAT, Array, Index, Read, Value, broadcast, stored
from vivace.codegen.lowering import shape_of
from vivace.codegen.statements import rows_of
from vivace.core.errors import NotApplicable
from vivace.runtimes.native.heads import PAIR, Head, NarrowHead
from vivace.runtimes.native.lowering import Program, rounds_operands

QUERIES = 32
"""Queries whose scores are in memory at a time."""
SPANS = 4
"""Of queries, each of which sees the keys up to its own end where none sees a later one."""


def attention(
    program: Program, node: Node, query: Value, key: Value, value: Value, mask: Any = None, dropout: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Value:  # fmt: skip
    """scaled_dot_product_attention of (n, heads, length, width)."""
    if len(query.shape) != 4 or dropout or any(len(one.shape) != 4 for one in (key, value)):
        raise NotApplicable(f"there is no C for {node.target} of this kind")
    key, value = (_of_every_head(one, query.shape[:2]) for one in (key, value))
    asked, keys, values = program.stored(query), _by_lines(program, key), _by_lines(program, value)
    if mask is not None and mask.array is None:
        mask = stored(program.stored(mask))
    n, heads, length, width = shape_of(node)
    to = program.room((n, heads, length, width), FLOAT, (0, 2, 1, 3))
    head, reads, written = _threads(program, n, heads, [asked, keys, values], to)
    if mask is not None:
        reads = [*reads, Read(mask.array.name, None)]
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    fits = asked.shape[-1] % PAIR == 0 and asked.strides[-1] == 1
    kind = NarrowHead if fits and rounds_operands(program, node) else Head
    body = _one_head(kind(program, asked, keys, values, to, min(QUERIES, length)), mask, is_causal, factor)
    program.add(f"  {{ {head} {{\n{body} }} }}", reads, (written,))
    return stored(to)


def _of_every_head(value: Value, of: Sequence[int]) -> Value:
    """Keys or values that heads, or samples, share, for each of them."""
    n, heads = of
    if value.shape[:2] == (n, heads):
        return value
    each = heads // value.shape[1]

    def back(index: Index) -> Index:
        head = "0" if value.shape[1] == 1 else f"({index[1]}/{each})"
        return ("0" if value.shape[0] == 1 else index[0], head, *index[2:])

    shape = (n, heads, *value.shape[2:])
    return Value(shape, value.kind, lambda i: value.at(back(i)), lambda i: value.reads(back(i)))


def _by_lines(program: Program, value: Value) -> Array:
    """A value whose lines lie in one piece."""
    array = program.stored(value)
    return array if array.strides[-1] == 1 else program.copied(stored(array))


def _threads(program: Program, n: int, heads: int, arrays: list[Array], to: Array) -> tuple[str, list[Read], Read]:
    """Threads take samples where there are enough, else heads."""
    if n >= program.threads > 1 or (n > 1 and program.threads == 1):
        head = f"{rows_of(n, program.threads)} for (long i = from; i < to; i++) for (long h = 0; h < {heads}; h++)"
        reads = [one.divided() if one.outer == 0 else Read(one.name, None) for one in arrays]
        return head, reads, to.divided()
    each = -(-n * heads // program.threads)
    count = n * heads
    loop = (
        f"const long from = MIN(t*{each}, {count}), to = MIN(from + {each}, {count}); for (long e = from; e < to; e++)"
    )
    return (
        f"{loop} for (long i = e/{heads}, h = e%{heads}, once = 1; once; once = 0)",
        [Read(one.name, None) for one in arrays],
        Read(to.name, None),
    )


def _one_head(head: Head, mask: Value | None, is_causal: bool, factor: float) -> str:
    """C for sample i and head h."""
    length, parts = head.to.shape[2], [head.ready()]
    for first, last, count in _walks(length, head.most, is_causal):
        seen = min(head.keys, last) if is_causal else head.keys
        line = head.program.vector.whole(seen)
        parts += [
            f"    for (long q = {first}; q < {last}; q += {count}) {{",
            head.scores(count, line),
            _shares(count, seen, line, mask, is_causal, factor),
            head.added(count, seen, line),
            "    }",
        ]
    return "\n".join(parts)


def _walks(length: int, most: int, is_causal: bool) -> list[tuple[int, int, int]]:
    """How queries are walked: from one to before another, so many at a time.

    >>> _walks(100, 32, False), _walks(100, 32, True)
    ([(0, 96, 32), (96, 100, 4)], [(0, 32, 32), (32, 64, 32), (64, 96, 32), (96, 100, 4)])
    """
    blocks = length // most
    each = -(-blocks // SPANS) if is_causal else blocks
    whole = blocks * most
    found = [(first, min(first + each * most, whole), most) for first in range(0, whole, each * most)]
    return [*found, *([(whole, length, length - whole)] if whole < length else [])]


def _shares(count: int, keys: int, wide: int, mask: Value | None, is_causal: bool, factor: float) -> str:
    """C that makes shares of scores, line by line."""
    score = f"r[j]*{factor!r}f"
    if mask is not None:
        told = mask.at(broadcast(mask, ("i", "h", "(q + m)", "j")))
        score = f"({told} ? {score} : -__builtin_inff())" if mask.kind == BOOL else f"({score} + (float)({told}))"
    if is_causal:
        score = f"(j <= q + m ? {score} : -__builtin_inff())"
    return (
        f"      for (long m = 0; m < {count}; m++) {{ float *r = s + m*{wide};\n"
        f'        _Pragma("omp simd") for (long j = 0; j < {keys}; j++) r[j] = {score}; }}\n'
        f"      shares<{keys}, {wide}>(s, {count});"
    )


ATTENTION: Mapping[str, Callable[..., Any]] = {"scaled_dot_product_attention": attention}
"""By the operator's name."""
