"""Products of matrices that are both computed, and copies between arrays."""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import Node

from vivace.codegen.arrays import FLOAT, Array, Read, Value, stored
from vivace.codegen.lowering import shape_of
from vivace.codegen.products import blocks
from vivace.codegen.statements import Statement, loop, rows_of
from vivace.core.errors import NotApplicable
from vivace.runtimes.native.lowering import Program


def product(program: Program, node: Node, a: Value, b: Value) -> Value:
    """a (..., m, k) by b (..., k, n) with the same leading axes."""
    if len(a.shape) != len(b.shape) or a.shape[:-2] != b.shape[:-2] or len(a.shape) < 2:
        raise NotApplicable(f"there is no C for {node.target} of shapes {a.shape} and {b.shape}")
    left, right = program.stored(a), _side_by_side(program, b)
    shape = shape_of(node)
    to = program.room(shape)
    *leading, m, n = shape
    k = a.shape[-1]
    head, index = _each(program, leading)
    at = {array: _begin(array, index) for array in (left, right, to)}
    first, second = left.strides[-2:]
    ends = (at[left], first, second), (at[right], right.strides[-2]), (at[to], to.strides[-2])
    body = tiles(program, (m, n, k), *ends)
    reads = [_read(one, index) for one in (left, right)]
    program.add(f"  {{ {head} {{\n{body} }} }}", reads, (_read(to, index),))
    return stored(to)


def _each(program: Program, leading: Sequence[int]) -> tuple[str, dict[int, str]]:
    """C that walks matrices with these leading axes, threads dividing the first; the axes' loop variables."""
    long = [axis for axis, size in enumerate(leading) if size > 1]
    if not long:
        return "if (t == 0)", {}
    index = {axis: f"i{number}" for number, axis in enumerate(long)}
    loops = [f"for (long i{n} = 0; i{n} < {leading[axis]}; i{n}++)" for n, axis in enumerate(long) if n]
    first = f"{rows_of(leading[long[0]], program.threads)} for (long i0 = from; i0 < to; i0++)"
    return " ".join([first, *loops]), index


def _read(array: Array, index: dict[int, str]) -> Read:
    """What a thread reads or writes that takes its own matrices."""
    return array.divided() if index and array.outer == min(index) else Read(array.name, None)


def _begin(array: Array, index: dict[int, str]) -> str:
    steps = [f"{name}*{array.strides[axis]}" for axis, name in index.items() if array.strides[axis]]
    return " + ".join([array.name, str(array.offset), *steps])


def _side_by_side(program: Program, b: Value) -> Array:
    """b with its columns side by side, and room for a whole vector of them."""
    array = program.stored(b)
    lanes = program.vector.lanes
    if array.strides[-1] == 1 and array.shape[-1] >= lanes:
        return array
    room = program.room((*array.shape[:-1], max(array.shape[-1], lanes)))
    to = Array(room.name, array.shape, room.strides)
    program.statements.append(_turned(program, array, to) or loop(to, stored(array), program.threads))
    return to


def _turned(program: Program, array: Array, to: Array) -> Statement | None:
    """The copy of matrices whose columns lie one after the other; None for others."""
    if array.strides[-2] != 1 or array.kind != FLOAT:
        return None
    *leading, rows, columns = array.shape
    head, index = _each(program, leading)
    begin, end = _begin(array, index), _begin(to, index)
    call = f"turned({begin}, {array.strides[-1]}, {end}, {to.strides[-2]}, {columns}, {rows});"
    return Statement(f"  {{ {head} {call} }}", (_read(array, index),), (_read(to, index),))


def tiles(
    program: Program, sizes: tuple[int, int, int], a: tuple[str, int, int], b: tuple[str, int], c: tuple[str, int],
    is_narrow: bool = False,
) -> str:  # fmt: skip
    """C of one product of m by k and k by n: where a begins with its two steps, where b and c begin with that of their
    rows. The columns of b and c lie side by side; b has room for a whole vector of them. `is_narrow`: k counts pairs of
    bfloat16, which a and b hold."""
    m, n, k = sizes
    suffix = "_narrow" if is_narrow else ""
    height = program.vector.block[0]
    lines = ["    for (long m = 0;;) {"]
    for rows, head in [(height, f"while (m + {height} <= {m})"), (m % height, f"if (m + {m % height} == {m})")]:
        if not rows or rows > m:
            continue
        calls = []
        for place, count, width in blocks(n, program.vector):
            program.tiles.add(("outer", rows, count, is_narrow))
            steps = f"{k}, {a[1]}, {a[2]}, {b[1]}, {c[1]}"
            calls.append(
                f"outer_{rows}_{count}{suffix}<{steps}>({a[0]} + m*{a[1]}, {b[0]} + {place}, (const float *)0, "
                f"{c[0]} + m*{c[1]} + {place}, {width});"
            )
        lines.append(f"      {head} {{ {' '.join(calls)} m += {rows}; }}")
    return "\n".join([*lines, "      break; }"])


def copy(program: Program, source: Array, to: Array, channel: int) -> None:
    """Write an image (n, channels, ...) into the channels of one that has more, from one on."""
    part = Array(to.name, source.shape, to.strides, to.kind, to.offset + channel * to.strides[1])
    program.statements.append(loop(part, stored(source), program.threads))


def per_thread(program: Program, elements: int) -> str:
    """Where a thread has memory of its own, of so many floats."""
    lanes = program.vector.lanes
    each = -(-elements // lanes) * lanes
    return f"{program.room((program.threads * each,)).name} + t*{each}"
