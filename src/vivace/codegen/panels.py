"""Products with weights that never change, packed once into panels; the rows of the other side may lie anywhere."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vivace.codegen.arrays import Array, Read
from vivace.codegen.statements import Statement, rows_of, share
from vivace.codegen.tiles import ALL_LEVELS, Vector

FLOAT32, BFLOAT16, INT8 = "float32", "bfloat16", "int8"
"""What products are computed in; sums are kept in 32 bits always."""
WORD_BYTES = 4
PER_WORD = {FLOAT32: 1, BFLOAT16: 2, INT8: 4}
"""How many elements of a row are multiplied by one instruction and lane."""
MOST_LISTED = 1024
"""Words of a row in several runs whose places are listed one by one: a loop over each run ends after some steps, which
processors foretell wrongly at times. A longer list would fill the first cache."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """The left side: row m begins at byte `places[m]` of an array, and consists of runs of `run` elements, each so many
    bytes (`segments`) after that. `outer` rows of the answer's outermost axis are divided among threads, `inner` lines
    each. In int8, `scales` holds for each row the size of a step, and what its bytes are more than the elements is
    `zero`, or, where that differs from row to row, in the second half of `scales`."""

    name: str
    places: tuple[int, ...]
    segments: tuple[int, ...]
    run: int
    outer: int
    inner: int
    reads: tuple[Read, ...]
    scales: str = ""
    zero: int | None = None

    def listed(self, precision: str) -> tuple[int, ...]:
        """What is told of where a row's elements lie: every word of it; where it is one run, or long, its runs."""
        words = words_of(self.run, precision)
        if len(self.segments) == 1 or len(self.segments) * words > MOST_LISTED:
            return self.segments
        return tuple(one + word * WORD_BYTES for one in self.segments for word in range(words))

    def are_few(self, threads: int) -> bool:
        """Whether there are too few rows for each thread to take some."""
        return threads > 1 and (len(self.places) < 4 * threads or self.outer < threads)


def divided(lengths: Sequence[int]) -> tuple[int, int]:
    """How many rows threads divide of an answer with these leading axes, and how many lines each has.

    >>> divided((1, 8, 3, 2)), divided((1, 1))
    ((8, 6), (1, 1))
    """
    outer, *inner = [length for length in lengths if length > 1] or [1]
    return outer, math.prod(inner)


@dataclasses.dataclass(frozen=True)
class Packed:
    """Weights as kernels read them: panel after panel, in each the words of one k side by side; a bias for each column,
    and in int8 the size of its step and the sum of its weights. Panels are `widths` vectors wide."""

    words: Tensor
    columns: Tensor
    widths: tuple[int, ...]
    precision: str


def packed(weight: Tensor, bias: Tensor | None, precision: str, vector: Vector, widths: tuple[int, ...]) -> Packed:
    """Weights (columns, segments, run) in panels of so many vectors."""
    columns, segments, run = weight.shape
    wide = sum(widths) * vector.lanes
    told = torch.zeros(3, wide)
    if bias is not None:
        told[0, :columns] = bias
    if precision == INT8:
        steps = weight.abs().amax(dim=(1, 2)).clamp_min(torch.finfo(torch.float32).tiny) / vector.int8_levels
        whole = (weight / steps[:, None, None]).round().clamp(-vector.int8_levels, vector.int8_levels)
        told[1, :columns], told[2, :columns] = steps, steps * whole.sum(dim=(1, 2))
        weight = whole.to(torch.int8)
    elif precision == BFLOAT16:
        weight = weight.to(torch.bfloat16)
    each = PER_WORD[precision]
    words = words_of(run, precision)
    padded = torch.zeros(wide, segments, words * each, dtype=weight.dtype)
    padded[:columns, :, :run] = weight
    lines = padded.reshape(wide, segments * words, each).transpose(0, 1)  # k, column, elements of a word
    found, first = [], 0
    for width in widths:
        found.append(lines[:, first : first + width * vector.lanes].reshape(-1))
        first += width * vector.lanes
    return Packed(torch.cat(found).contiguous(), told.contiguous(), widths, precision)


def panels(vectors: int, vector: Vector, rows: int, parts: int = 1, precision: str = FLOAT32) -> tuple[int, ...]:
    """The widths of panels for so many vectors of columns.

    >>> panels(8, Vector(16, 32), 64), panels(4, Vector(16, 32), 64), panels(8, Vector(16, 32), 1)
    ((3, 3, 2), (2, 2), (8,))
    """
    height = tile_height(vector, rows)
    most = min(8, free_registers(vector, precision) // (height + 1))
    count = min(vectors, max(-(-vectors // most), parts))
    if count > parts > 1:
        count = -(-count // parts) * parts
    count = min(count, vectors)
    wide, more = divmod(vectors, count)
    return (wide + 1,) * more + (wide,) * (count - more)


def free_registers(vector: Vector, precision: str) -> int:
    """How many registers there are for the sums of a tile and for a line of weights: all but one for an element of the
    rows; and where products of bytes are added in two steps, but what is added up between, and the ones for that.

    >>> free_registers(Vector(8, 16, int8_levels=64), INT8)
    13
    """
    in_steps = precision == INT8 and vector.int8_levels < ALL_LEVELS
    return vector.registers - (3 if in_steps else 1)


def tile_height(vector: Vector, rows: int, width: int = 3, precision: str = FLOAT32) -> int:
    """How many rows a tile has that is so many vectors wide: with few, narrow tiles would wait for their own sums.

    >>> [tile_height(Vector(8, 16), 100, width) for width in (1, 2, 3)]
    [8, 6, 4]
    """
    if vector.registers >= 32:
        return min(rows, 8)
    return min(rows, 8, max(1, free_registers(vector, precision) // width - 1))


def words_of(elements: int, precision: str) -> int:
    """How many words so many elements of a row take."""
    return -(-elements // PER_WORD[precision])


def bytes_of(elements: int, precision: str) -> int:
    """How many bytes a run of so many elements takes, as kernels read it."""
    return words_of(elements, precision) * WORD_BYTES


Kernel = tuple[str, int, int, bool]
"""(precision, rows, vectors) of a tile, and whether it is told where every word of a row lies instead of runs."""


@dataclasses.dataclass(frozen=True)
class Ending:
    """What is done with a product before it is stored: `add`, an array that lies as the product, added; then what is
    less than zero made zero (`relu`), and what is more than `most` made that."""

    add: Array | None = None
    relu: bool = False
    most: float | None = None


@dataclasses.dataclass(frozen=True)
class PanelProduct:
    """c[m, n] = sum over k of rows[m, k] weight[k, n] + bias[n]. `words` and `columns` name the packed weights,
    `line` is how far rows of c are apart."""

    to: Array
    line: int
    rows: Rows
    weight: Packed
    words: str
    columns: str
    ending: Ending

    def divides_columns(self, threads: int) -> bool:
        """Whether threads take panels instead of rows."""
        return self.rows.are_few(threads) and len(self.weight.widths) >= threads

    def statement(self, vector: Vector, threads: int, table: str, segments: str) -> tuple[Statement, set[Kernel]]:
        """The C of it, and the kernels that it calls. `table` names the rows' places, `segments` what is `listed` of
        their elements."""
        by_columns = self.divides_columns(threads)
        kernels: set[Kernel] = set()
        rows, count = self.rows, len(self.rows.places)
        heights = {count} if by_columns else _lengths(rows, threads)
        lines = ["  {" if by_columns else f"  {{ {rows_of(rows.outer, threads)}"]
        lines.append(f"    const long first = {'0' if by_columns else f'from*{rows.inner}'};")
        lines.append(f"    const long last = {count if by_columns else f'to*{rows.inner}'};")
        place, depth = 0, len(rows.segments) * words_of(rows.run, self.weight.precision)
        listed = len(rows.listed(self.weight.precision))
        for number, width in enumerate(self.weight.widths):
            guard = f"if (t == {number * threads // len(self.weight.widths)}) " if by_columns else ""
            lines.append(f"    {guard}for (long m = first; m < last;) {{")
            height = tile_height(vector, count, width, self.weight.precision)
            for step, head in _steps(heights, height):
                name = (self.weight.precision, step, width, listed != len(rows.segments))
                kernels.add(name)
                call = self._call(name, place, (listed, depth // listed), table, segments, vector)
                lines.append(f"      {head} {{ {call} m += {step}; }}")
            lines.append("    }")
            place += width
        lines.append("  }")
        by_rows = not by_columns and rows.outer > 1
        written = self.to.divided() if by_rows else Read(self.to.name, None)
        reads = [one if by_rows else Read(one.name, None) for one in rows.reads]
        if self.ending.add is not None:
            reads.append(self.ending.add.divided() if by_rows else Read(self.ending.add.name, None))
        return Statement("\n".join(lines), tuple(reads), (written,)), kernels

    def _call(
        self, kernel: Kernel, place: int, runs: tuple[int, int], table: str, segments: str, vector: Vector
    ) -> str:
        """A tile, from row m on, of the panel that begins with vector number `place`; `runs` are how many there are,
        and how many words each has."""
        column, (count, run) = place * vector.lanes, runs
        told = ""
        if self.weight.precision == INT8:
            zeros = f"{self.rows.scales} + {len(self.rows.places)} + m" if self.rows.zero is None else "0"
            told = f"{self.rows.scales} + m, {zeros}, {self.rows.zero or 0}.0f, "
        more = self.ending.add
        add = f"{more.name} + {more.offset} + m*{self.line} + {column}" if more is not None else "0"
        to = f"{self.to.name} + {self.to.offset} + m*{self.line} + {column}"
        return (
            f"{name_of(kernel)}((const char *){self.rows.name}, {table} + m, {segments}, "
            f"{count}, {run}, (const char *){self.words} + {column * count * run * WORD_BYTES}L, "
            f"{self.columns} + {column}, {sum(self.weight.widths) * vector.lanes}, {told}{add}, {to}, {self.line}, "
            f"{bounds(self.ending)});"
        )


def bounds(ending: Ending) -> str:
    """The least and the most that a product may be when it is stored."""
    least = "0.0f" if ending.relu else "-__builtin_inff()"
    return f"{least}, {'__builtin_inff()' if ending.most is None else f'{float(ending.most)!r}f'}"


def _lengths(rows: Rows, threads: int) -> set[int]:
    """How many rows threads may have."""
    each = share(rows.outer, threads)
    taken = {max(0, min(each, rows.outer - thread * each)) for thread in range(threads)}
    return {one * rows.inner for one in taken}


def _steps(lengths: set[int], height: int) -> list[tuple[int, str]]:
    """Heights of tiles that walk each of these lengths, each with the C that begins it."""
    found = [(height, f"if (last - m >= {height})")] if any(one >= height for one in lengths) else []
    left = sorted({one % height for one in lengths} - {0})
    for one in left:
        head = f"if (last - m == {one})"
        found.append((one, f"else {head}" if found else head))
    return found


def name_of(kernel: Kernel) -> str:
    """What the function of a kernel is called."""
    precision, height, width, is_listed = kernel
    return f"panel_{precision}_{height}_{width}{'_listed' if is_listed else ''}"


def kernel(name: Kernel, vector: Vector) -> str:
    """The C of a kernel: a tile of sums stays in registers while the rows' words are walked."""
    precision, height, width, is_listed = name
    is_int = precision == INT8
    hold, sums = ("ivec" if precision != FLOAT32 else "vec"), ("ivec" if is_int else "vec")
    extra = "const float *scale, const float *zero, float fixed, " if is_int else ""
    cells = [(r, c) for r in range(height) for c in range(width)]
    lines = [
        f"static __attribute__((noinline)) void {name_of(name)}(const char *a, const int *places, "
        "const int *segments, long count, long run, const char *b, const float *columns, long wide, "
        f"{extra}const float *add, float *c, long line, float least, float most) {{",
        *(f"  {sums} s{r}_{c} = {sums}{{}};" for r, c in cells),
        *(f"  const char *a{r} = a + places[{r}];" for r in range(height)),
        "  for (long g = 0; g < count; g++) {",
        "    const long o = segments[g];",
    ]
    if not is_listed:
        lines += [f"    const char *x{r} = a{r} + o;" for r in range(height)]
        lines.append("    for (long k = 0; k < run; k++) {")
    load = "iload((const int *)b + {})" if hold == "ivec" else "load((const float *)b + {})"
    held = " KEEP(b{});" if height > 1 else ""  # else compilers read it once for each row
    lines += [f"      {hold} b{c} = {load.format(f'{c}*LANES')};{held.format(c)}" for c in range(width)]
    at = "a{0} + o" if is_listed else "x{0} + k*4"
    one = f"word({at})" if hold == "ivec" else f"*(const float *)({at})"
    for r in range(height):
        lines.append(f"      {{ {hold} x = spread({one.format(r)}); KEEP(x);")
        lines += [f"        add_products(s{r}_{c}, x, b{c});" for c in range(width)]
        lines.append("      }")
    lines += [f"      b += {width}*LANES*4;", *([] if is_listed else ["    }"]), "  }"]
    lines += _ending(height, width, is_int)
    return "\n".join([*lines, "}"])


def _ending(height: int, width: int, is_int: bool) -> list[str]:
    lines = []
    for c in range(width):
        lines.append(f"  {{ const vec bias = load(columns + {c}*LANES);")
        if is_int:
            lines.append(f"    const vec step = load(columns + wide + {c}*LANES);")
            lines.append(f"    const vec whole = load(columns + 2*wide + {c}*LANES);")
        for r in range(height):
            value = f"s{r}_{c} + bias"
            if is_int:
                zero = f"(zero ? zero[{r}] : -fixed * scale[{r}])"
                value = f"__builtin_convertvector(s{r}_{c}, vec) * (step * scale[{r}]) + (whole * {zero} + bias)"
            lines.append(f"    {{ vec v = {value};")
            lines.append(f"      if (add) v += load(add + {r}*line + {c}*LANES);")
            lines.append("      v = bounded(v, least, most);")
            lines.append(f"      store(c + {r}*line + {c}*LANES, v); }}")
        lines.append("  }")
    return lines


TEXT = """
typedef int word_t __attribute__((aligned(1), may_alias));
static inline int word(const char *p) { return *(const word_t *)p; }
"""
