"""Matrices written down with rows and columns exchanged, a block of vectors at a time in registers."""

from __future__ import annotations

from vivace.codegen.tiles import Vector


def turned(vector: Vector) -> str:
    """C++ of `turned(from, step, to, line, rows, columns)`: to[c*line + r] = from[r*step + c]."""
    return _TEXT.replace("$BLOCK", "\n".join(_block(vector.lanes)))


def _block(lanes: int) -> list[str]:
    """As many lines as a vector has lanes. For each power of two, lines so far apart exchange what lies so far apart:
    the bits of a lane's number and of its line's number change places one by one."""
    lines = [f"  vec x{row} = load(from + {row}*step);" for row in range(lanes)]
    apart = 1
    while apart < lanes:
        low = [lane if not lane & apart else lanes + lane - apart for lane in range(lanes)]
        high = [lane + apart if not lane & apart else lanes + lane for lane in range(lanes)]
        for row in range(lanes):
            if row & apart:
                continue
            one, other = f"x{row}", f"x{row + apart}"
            lines.append(
                f"  {{ const vec a = __builtin_shufflevector({one}, {other}, {', '.join(map(str, low))});\n"
                f"    {other} = __builtin_shufflevector({one}, {other}, {', '.join(map(str, high))}); {one} = a; }}"
            )
        apart *= 2
    return [*lines, *(f"  store(to + {row}*line, x{row});" for row in range(lanes))]


_TEXT = """
static inline void turned_block(const float *from, long step, float *to, long line) {
#if HAS_SHUFFLES
$BLOCK
#else
  for (long r = 0; r < LANES; r++) for (long c = 0; c < LANES; c++) to[c*line + r] = from[r*step + c];
#endif
}
static void turned(const float *from, long step, float *to, long line, long rows, long columns) {
  for (long r = 0; r < rows; r += LANES) {
    const long high = MIN(LANES, rows - r);
    long c = 0;
    for (; high == LANES && c + LANES <= columns; c += LANES)
      turned_block(from + r*step + c, step, to + c*line + r, line);
    for (; c < columns; c++) for (long e = r; e < r + high; e++) to[c*line + e] = from[e*step + c];
  }
}
"""
