"""Tiles of products within a statement, copies between arrays, and threads' own memory."""

from __future__ import annotations

from vivace.codegen.arrays import Array, stored
from vivace.codegen.products import blocks
from vivace.codegen.statements import loop
from vivace.runtimes.native.lowering import Program


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
    each = program.vector.whole(elements)
    return f"{program.room((program.threads * each,)).name} + t*{each}"
