"""Micro-kernels of matrix products as C++: a block of the answer stays in registers while the inner axis is walked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

ALL_LEVELS, HALF_LEVELS = 127, 64
"""Of a weight in int8, on either side of zero: all that bytes have (Jacob et al., CVPR 2018, arXiv:1712.05877) where
products of bytes are added in 32 bits (VNNI); where two of them are added in 16 (vpmaddubsw), as many as cannot
overflow those: 2 * 255 * 64 < 2^15."""
INLINE = "static inline __attribute__((always_inline))"


@dataclasses.dataclass(frozen=True)
class Vector:
    """A processor's vectors: `registers` of them, of `lanes` floats each. `has_bf16`: it adds products of bfloat16.
    `int8_levels`: how far from zero a weight in bytes may be, 0 where it cannot add products of bytes."""

    lanes: int
    registers: int
    has_bf16: bool = False
    int8_levels: int = 0

    @property
    def block(self) -> tuple[int, int]:
        """Rows and vectors (or columns) of a block: with a line of each operand it just fits the registers."""
        return (8, 3) if self.registers >= 32 else (6, 2)

    @property
    def has_int8(self) -> bool:
        """Whether it adds products of bytes."""
        return self.int8_levels > 0

    def whole(self, count: int) -> int:
        """So many elements, and as many more as fill whole vectors.

        >>> Vector(16, 32).whole(33)
        48
        """
        return -(-count // self.lanes) * self.lanes


def vector_of(instructions: Sequence[str]) -> Vector:
    """The widest vectors of a processor with these instruction sets.

    >>> vector_of(["avx2", "fma"])
    Vector(lanes=8, registers=16, has_bf16=False, int8_levels=64)
    """
    if "avx512f" in instructions:
        levels = ALL_LEVELS if "avx512_vnni" in instructions else HALF_LEVELS if "avx512bw" in instructions else 0
        return Vector(16, 32, "avx512_bf16" in instructions, levels)
    if "avx2" in instructions:
        return Vector(8, 16, False, ALL_LEVELS if "avx_vnni" in instructions else HALF_LEVELS)
    return Vector(4, 32 if any(one.startswith("asimd") for one in instructions) else 16)


def tile(vector: Vector, kind: str, rows: int, columns: int, narrow: bool) -> str:
    """The C++ of a micro-kernel, by its kind."""
    return (inner_tile if kind == "inner" else outer_tile)(vector, rows, columns, narrow)


def outer_tile(vector: Vector, rows: int, columns: int, narrow: bool) -> str:
    """`rows` times `columns` vectors of the answer, where b has its columns side by side: a line of it is loaded for
    every k and multiplied by one element of a for each row. With `narrow`, an element is a pair of bfloat16."""
    name = f"outer_{rows}_{columns}{'_narrow' if narrow else ''}"
    kind, hold, load = ("int", "ivec", "iload") if narrow else ("float", "vec", "load")
    lines = [
        f"template <long K, long AM, long AK, long BK, long CM> {INLINE} void {name}",
        f"(const {kind} *a, const {kind} *b, const float *bias, float *c, long width) {{",
        *(f"  vec s0_{c} = bias ? load_some(bias + {c}*LANES, width - {c}*LANES) : vec{{}};" for c in range(columns)),
        *(f"  vec s{r}_{c} = s0_{c};" for r in range(1, rows) for c in range(columns)),
        "  for (long k = 0; k < K; k++) {",
        *(f"    {hold} b{c} = {load}(b + k*BK + {c}*LANES); KEEP(b{c});" for c in range(columns)),
    ]  # fmt: skip
    for r in range(rows):
        lines.append(f"    {{ {hold} x = spread(a[{r}*AM + k*AK]); KEEP(x);")
        lines += [f"      add_products(s{r}_{c}, x, b{c});" for c in range(columns)]
        lines.append("    }")
    lines.append("  }")
    for r in range(rows):
        for c in range(columns):
            if c == columns - 1:
                lines.append(f"  store_some(c + {r}*CM + {c}*LANES, s{r}_{c}, width - {c}*LANES);")
            else:
                lines.append(f"  store(c + {r}*CM + {c}*LANES, s{r}_{c});")
    return "\n".join([*lines, "}"])


def inner_tile(vector: Vector, rows: int, columns: int, narrow: bool) -> str:
    """`rows` times `columns` elements of the answer, where a and b both have k side by side: vectors of products along
    k are added up, and in the end the lanes of each. With `narrow`, a vector holds bfloat16."""
    name = f"inner_{rows}_{columns}{'_narrow' if narrow else ''}"
    kind, each = ("short", 2 * vector.lanes) if narrow else ("float", vector.lanes)
    sums = [f"s{r}_{c}" for r in range(rows) for c in range(columns)]
    hold, load = ("ivec", "iload((const int *)({}))") if narrow else ("vec", "load({})")

    def products(form: str) -> list[str]:
        found = [f"    const {hold} b{c} = {form.format(f'b + {c}*BN + k', 'K - k')};" for c in range(columns)]
        for r in range(rows):
            found.append(f"    {{ {hold} x = {form.format(f'a + {r}*AM + k', 'K - k')}; KEEP(x);")
            found += [f"      add_products(s{r}_{c}, x, b{c});" for c in range(columns)]
            found.append("    }")
        return found

    lines = [
        f"template <long K, long AM, long BN, long CM> {INLINE} void {name}",
        f"(const {kind} *a, const {kind} *b, const float *bias, float *c) {{",
        *(f"  vec {one} = vec{{}};" for one in sums),
        "  long k = 0;",
        f"  for (; k + {each} <= K; k += {each}) {{",
        *products(load),
        "  }",
        *([] if narrow else ["  if (k < K) {", *products("load_some({}, {})"), "  }"]),  # bfloat16 ends with zeros
        f"  float t[{-(-len(sums) // vector.lanes) * vector.lanes}];",
    ]
    for start in range(0, len(sums), vector.lanes):
        lines += lanes_added(sums[start : start + vector.lanes], vector.lanes, start)
    for r in range(rows):
        for c in range(columns):
            place = r * columns + c
            lines.append(f"  c[{r}*CM + {c}] = t[{place}] + (bias ? bias[{c}] : 0.0f);")
    return "\n".join([*lines, "}"])


def lanes_added(names: Sequence[str], lanes: int, start: int) -> list[str]:
    """C that adds up the lanes of up to `lanes` vectors, and stores the sums in their order at `t + start`."""
    lines: list[str] = []
    level = [*names, *(["vec{}"] * (lanes - len(names)))]
    segments, number = 1, 0
    while len(level) > 1:
        length = lanes // segments
        low = [g * length + j for g in range(segments) for j in range(length // 2)]
        high = [place + length // 2 for place in low]
        masks = [", ".join(map(str, [*half, *(place + lanes for place in half)])) for half in (low, high)]
        joined = []
        for one, other in zip(level[::2], level[1::2], strict=True):
            if one == other == "vec{}":
                joined.append("vec{}")
                continue
            found = f"f{start}_{segments}_{number}"
            number += 1
            parts = " + ".join(f"__builtin_shufflevector({one}, {other}, {mask})" for mask in masks)
            lines.append(f"  const vec {found} = {parts};")
            joined.append(found)
        level, segments = joined, segments * 2
    return [*lines, f"  store(t + {start}, {level[0]});"]
