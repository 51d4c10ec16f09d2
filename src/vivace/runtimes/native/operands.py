"""The left sides of products as kernels read them: float32 where it lies, bfloat16 and int8 rounded into rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from vivace.codegen.arrays import FLOAT, Array, Index, Read, Value, stored
from vivace.codegen.panels import BFLOAT16, FLOAT32, INT8, Rows, bytes_of, divided
from vivace.codegen.statements import rows_of
from vivace.runtimes.native.lowering import Program

SIGNED, UNSIGNED = 128, 0
"""What a byte is more than the number that it stands for: where numbers have signs, and where none is below zero."""


def lines_of(program: Program, value: Value, precision: str) -> Rows:
    """The rows of a value (..., k): one for each index of the leading axes."""
    array = value.array
    if precision == FLOAT32:
        array = program.stored(value)
        if array.strides[-1] != 1 and array.shape[-1] > 1:
            array = program.copied(stored(array))
        return _rows(array, 4, array.shape[-1])
    key = (precision, array)
    if array is None or key not in program.prepared:
        made = _narrowed(program, value) if precision == BFLOAT16 else _quantized(program, value)
        if array is None:
            return made
        program.prepared[key] = made
    return program.prepared[key]


def _rows(array: Array, size: int, run: int, scales: str = "", more: Sequence[Read] = ()) -> Rows:
    """Rows of an array (..., k) whose elements take `size` bytes."""
    steps = list(zip(array.shape[:-1], array.strides[:-1], strict=True))
    places = [
        size * (array.offset + sum(index * step for index, (_, step) in zip(each, steps, strict=True)))
        for each in itertools.product(*(range(length) for length, _ in steps))
    ]
    outer, inner = divided(array.shape[:-1])
    is_first = array.outer is not None and array.shape[: array.outer] == (1,) * array.outer and outer > 1
    read = array.divided() if is_first else Read(array.name, None)
    return Rows(array.name, tuple(places), (0,), run, outer, inner, (read, *more), scales)


def _narrowed(program: Program, value: Value) -> Rows:
    """Rounded to bfloat16; rows end with zeros."""
    *leading, k = value.shape
    room = program.room((*leading, bytes_of(k, BFLOAT16) // 2), "short")
    to = Array(room.name, value.shape, room.strides, "short")
    index = line_index(value.shape)
    text = f'_Pragma("omp simd") for (long k = 0; k < {k}; k++) {to.at(index)} = narrow({value.at(index)});'
    program.add(each_line(program, to, text), value.reads(index), (own(to),))
    return _rows(to, 2, k)


def line_index(shape: Sequence[int]) -> Index:
    """The index of element k of a line, as `each_line` names the leading axes.

    >>> line_index((1, 8, 3, 5))
    ('0', 'i0', 'i1', 'k')
    """
    return (*Array.whole("", (*shape[:-1], 1)).index[:-1], "k")


def own(to: Array) -> Read:
    """How `each_line` writes an array (..., k): a thread its own lines, where there are several."""
    return to.divided() if any(length > 1 for length in to.shape[:-1]) else Read(to.name, None)


def each_line(program: Program, to: Array, text: str) -> str:
    """C that does something for each line of an array (..., k), a thread its own."""
    leading = Array.whole("", to.shape[:-1])
    axes = [axis for axis in leading.order if leading.shape[axis] > 1]
    if not axes:
        return f"  if (t == 0) {{ {text} }}"
    loops = ["for (long i0 = from; i0 < to; i0++) {"]
    loops += [f"for (long i{n} = 0; i{n} < {leading.shape[axis]}; i{n}++) {{" for n, axis in enumerate(axes) if n]
    rows = rows_of(leading.shape[axes[0]], program.threads)
    return f"  {{ {rows}\n    {' '.join(loops)}\n      {text} {'} ' * len(axes)}}}"


def _quantized(program: Program, value: Value) -> Rows:
    """As bytes, each row with its own step and zero: as many levels as bytes have between its ends."""
    *leading, k = value.shape
    room = program.room((*leading, bytes_of(k, INT8)), "byte")
    to = Array(room.name, value.shape, room.strides, "byte")
    count = math.prod(leading)
    scales = program.room((2 * count,)).name
    index = line_index(value.shape)
    number = _numbered(leading, index)
    text = (
        f"{line_at(value, index)}\n      const Range range = line_range<{k}>(line);\n"
        f"      const float step = step_of(range.high - range.low, 255.0f, range.odd), by = 1.0f / step;\n"
        f"      const float zero = __builtin_rintf(-range.low * by), moved = zero + TO_WHOLE;\n"
        f"      {scales}[{number}] = step; {scales}[{count} + {number}] = -zero * step;\n"
        f'      _Pragma("omp simd") for (long k = 0; k < {k}; k++) {to.at(index)} = low_byte(line[k] * by + moved);'
    )
    reads = value.reads(index)
    mine = own(to)
    scaled = Read(scales, mine.rows, 1)
    program.add(each_line(program, to, text), reads, (mine, scaled))
    return _rows(to, 1, k, scales, (scaled,))


def line_at(value: Value, index: Index) -> str:
    """C that defines `line`, the elements of a line for an index that ends with k: where they lie, or computed.

    >>> line_at(stored(Array.whole("a", (2, 3))), ("i0", "k"))
    'const float *line = &a[i0*3];'
    """
    k = value.shape[-1]
    if value.array is not None and value.array.strides[-1] == 1 and value.array.kind == FLOAT:
        return f"const float *line = &{value.at((*index[:-1], '0'))};"
    element = (value.coarse or value.at)(index)
    return f'float line[{k}]; _Pragma("omp simd") for (long k = 0; k < {k}; k++) line[k] = {element};'


def _numbered(leading: Sequence[int], index: Index) -> str:
    """The number of a line, from the index of the leading axes."""
    steps = Array.whole("", tuple(leading)).strides
    terms = [f"{place}*{step}" for place, step in zip(index, steps, strict=False) if place != "0"]
    return " + ".join(terms) or "0"
