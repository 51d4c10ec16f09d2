"""Attention: for each head the scores of all queries, their shares, and the values that these add up."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch.fx import Node

from vivace.codegen.arrays import BOOL, FLOAT, Array, Read, Value, broadcast, stored
from vivace.codegen.lowering import shape_of
from vivace.codegen.statements import rows_of
from vivace.core.errors import NotApplicable
from vivace.runtimes.native.lowering import Program
from vivace.runtimes.native.matrices import per_thread, tiles

QUERIES = 32
"""Queries whose scores are in memory at a time."""
SPANS = 4
"""Of queries, each of which sees the keys up to its own end where none sees a later one."""


def attention(
    program: Program, node: Node, query: Value, key: Value, value: Value, mask: Any = None, dropout: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Value:  # fmt: skip
    """scaled_dot_product_attention of (n, heads, length, width)."""
    if len(query.shape) != 4 or dropout or key.shape[:2] != query.shape[:2]:
        raise NotApplicable(f"there is no C for {node.target} of this kind")
    arrays = [program.stored(query), *(_by_lines(program, one) for one in (key, value))]
    if mask is not None and mask.array is None:
        mask = stored(program.stored(mask))
    n, heads, length, width = shape_of(node)
    to = program.room((n, heads, length, width), FLOAT, (0, 2, 1, 3))
    head, reads, written = _threads(program, n, heads, arrays, to)
    if mask is not None:
        reads = [*reads, Read(mask.array.name, None)]
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    body = _one_head(program, arrays, to, mask, is_causal, factor)
    program.add(f"  {{ {head} {{\n{body} }} }}", reads, (written,))
    return stored(to)


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


def _one_head(
    program: Program, arrays: list[Array], to: Array, mask: Value | None, is_causal: bool, factor: float
) -> str:
    """C for sample i and head h."""
    query, key, value = arrays
    _, _, length, width = to.shape
    keys, depth = key.shape[2:]
    lanes = program.vector.lanes
    wide = -(-keys // lanes) * lanes
    most = min(QUERIES, length)
    turned, scores = per_thread(program, depth * wide), per_thread(program, most * wide)
    begin = {one: f"{one.name} + {one.offset} + i*{one.strides[0]} + h*{one.strides[1]}" for one in (*arrays, to)}
    copied, value_line = _with_room(program, value, begin[value], keys, width)
    parts = [
        f"    float *kt = {turned}, *s = {scores};",
        f"    turned({begin[key]}, {key.strides[2]}, kt, {wide}, {keys}, {depth});",
        copied,
    ]
    for first, last, count in _walks(length, most, is_causal):
        seen = min(keys, last) if is_causal else keys
        line = -(-seen // lanes) * lanes
        asked = (f"{begin[query]} + q*{query.strides[2]}", query.strides[2], query.strides[3])
        parts.append(f"    for (long q = {first}; q < {last}; q += {count}) {{")
        parts.append(tiles(program, (count, line, depth), asked, ("kt", wide), ("s", line)))
        parts.append(_shares(count, seen, line, mask, is_causal, factor))
        given = (f"{begin[to]} + q*{to.strides[2]}", to.strides[2])
        parts.append(tiles(program, (count, width, seen), ("s", line, 1), ("v", value_line), given))
        parts.append("    }")
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


def _with_room(program: Program, value: Array, begin: str, keys: int, width: int) -> tuple[str, int]:
    """C that defines `v`, lines of values with room for a whole vector; how far they are apart."""
    lanes = program.vector.lanes
    if width >= lanes:
        return f"    const float *v = {begin};", value.strides[2]
    memory = per_thread(program, keys * lanes)
    return (
        f"    float *v = {memory}; for (long j = 0; j < {keys}; j++) for (long d = 0; d < {width}; d++) "
        f"v[j*{lanes} + d] = ({begin})[j*{value.strides[2]} + d];",
        lanes,
    )


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
