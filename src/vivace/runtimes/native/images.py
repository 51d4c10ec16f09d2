"""Images and sequences as convolutions read them: channels side by side, borders already around them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from vivace.codegen.arrays import Array, Read, Value
from vivace.codegen.panels import BFLOAT16, FLOAT32, INT8, PER_WORD, Rows, divided
from vivace.codegen.statements import rows_of
from vivace.runtimes.native.lowering import Program
from vivace.runtimes.native.operands import SIGNED, UNSIGNED
from vivace.runtimes.native.windows import Window

KINDS = {FLOAT32: ("float", 4), BFLOAT16: ("short", 2), INT8: ("byte", 1)}
"""The kind of elements, and their bytes."""


SHORT = 8
"""A loop with fewer steps is not the innermost one, where elements that lie side by side can be read in another."""


def order_of(rank: int) -> tuple[int, ...]:
    """Channels last: the batch, the axes of the image, the channels.

    >>> order_of(4)
    (0, 2, 3, 1)
    """
    return (0, *range(2, rank), 1)


def channels_last(program: Program, shape: Sequence[int]) -> Array:
    """A new array (n, channels, *sizes) whose lines of channels have room for whole vectors, and end with zeros."""
    order = order_of(len(shape))
    wide = program.lines([shape[axis] for axis in order[:-1]], shape[1])
    return Array(wide.name, tuple(shape), tuple(wide.strides[order.index(axis)] for axis in range(len(shape))))


def each_place(program: Program, samples: int, counts: Sequence[int]) -> tuple[str, str, list[str]]:
    """Loops over the samples `i` and the places of an image with so many along each axis: C that defines a thread's
    part of them, their heads, and the names of the places."""
    names = [f"y{axis}" for axis in range(len(counts))]
    loops = [("i", samples), *zip(names, counts, strict=True)]
    split = next((place for place, (_, length) in enumerate(loops) if length > 1), 0)
    heads = []
    for place, (name, length) in enumerate(loops):
        start, stop = ("from", "to") if place == split else ("0", str(length))
        heads.append(f"for (long {name} = {start}; {name} < {stop}; {name}++)")
    return rows_of(loops[split][1], program.threads), " ".join(heads), names


def add_each_place(program: Program, text: str, array: Array, to: Array) -> None:
    """A statement with these loops that reads an image and writes another."""
    read = array.divided() if array.shape[0] > 1 and array.outer == 0 else Read(array.name, None)
    program.add(text, [read], (to.divided() if to.outer not in (None, 1) else Read(to.name, None),))
    if program.is_nonnegative(array):
        program.nonnegative.add(to.name)


def side_by_side(program: Program, value: Value) -> Array:
    """Where an image (n, channels, *sizes) lies in float32 with its channels side by side."""
    return _prepared(program, value, Window.of_places(len(value.shape) - 2), FLOAT32).array


def rows(program: Program, value: Value, window: Window, precision: str) -> Rows:
    """The rows of an image (n, channels, *sizes): one for each place of the answer, its window's elements, in as few
    runs as can be."""
    image = _prepared(program, value, window, precision)
    size = KINDS[precision][1]
    steps = [step * size for step in image.array.strides]
    answers = window.answers(value.shape[2:])
    places = [0]
    axes = zip(answers, window.stride, steps[2:], strict=True)
    for length, step in [(value.shape[0], steps[0]), *((n, s * step) for n, s, step in axes)]:
        places = [place + number * step for place in places for number in range(length)]
    *outside, across = window.kernel
    is_merged = window.dilation[-1] == 1 and window.groups == 1 and steps[-1] == value.shape[1] * size
    taps = [range(length) for length in (outside if is_merged else window.kernel)]
    segments = [0]
    for axis, tap in enumerate(taps):
        segments = [one + number * window.dilation[axis] * steps[2 + axis] for one in segments for number in tap]
    run = value.shape[1] // window.groups * (across if is_merged else 1)
    outer, inner = divided((value.shape[0], *answers))
    reads = [image.read if value.shape[0] > 1 or window.is_pointwise else Read(image.array.name, None)]
    reads += [Read(image.scales, outer, inner)] if image.scales else []
    begin = image.array.offset * size
    return Rows(
        image.array.name, tuple(begin + place for place in places), tuple(segments), run, outer, inner, tuple(reads),
        image.scales, image.zero,
    )  # fmt: skip


def of_group(rows: Rows, group: int, channels: int, precision: str) -> Rows:
    """The rows of one group of channels of a grouped convolution."""
    more = group * channels * KINDS[precision][1]
    return dataclasses.replace(rows, segments=tuple(one + more for one in rows.segments))


@dataclasses.dataclass(frozen=True)
class _Image:
    """An image with its borders; `array` (n, channels, *sizes) begins in the corner of the border."""

    array: Array
    read: Read
    scales: str = ""
    zero: int | None = None


def _prepared(program: Program, value: Value, window: Window, precision: str) -> _Image:
    array = program.stored(value)
    if precision == FLOAT32 and not window.has_border and array.order[-1] == 1 and array.strides[1] == 1:
        return _Image(array, array.divided())
    answers = window.answers(value.shape[2:])
    key = ("image", array, window.before, window.after, precision, answers if precision == INT8 else ())
    if key not in program.prepared:
        program.prepared[key] = _bordered(program, array, window, precision)  # type: ignore[assignment]
    found: _Image = program.prepared[key]  # type: ignore[assignment]
    return found


def _bordered(program: Program, array: Array, window: Window, precision: str) -> _Image:
    """A copy with borders around it, in the precision of the product."""
    kind, _ = KINDS[precision]
    n, channels, *sizes = array.shape
    wide = window.wide(sizes)
    # one word more: the last run may be read beyond its end
    room = program.room((n * channels * math.prod(wide) + PER_WORD[INT8],), kind)
    whole = Array.whole(room.name, (n, channels, *wide), kind, order_of(len(array.shape)))
    inner = sum(pad * step for pad, step in zip(window.before, whole.strides[2:], strict=True))
    to = Array(whole.name, array.shape, whole.strides, kind, inner)
    walk = _Loops.over(to, array)
    if precision != INT8:
        text = "narrow({})" if precision == BFLOAT16 else "{}"
        body = walk.nest(0, f"{walk.at(0)} = {text.format(walk.at(1))};")
        program.add(f"  {{ {walk.rows(program.threads)}\n    {body} }}", (array.read(to.index),), (_part(whole, n),))
        return _Image(whole, _part(whole, n))
    return _quantized(program, array, to, whole, window)


def _part(whole: Array, n: int) -> Read:
    """How a statement writes it whose threads take samples, or lines of the only one."""
    return whole.divided() if n > 1 else Read(whole.name, None)


@dataclasses.dataclass(frozen=True)
class _Loops:
    """Loops over the elements of arrays of one shape, in the order of the first, but for a short innermost one; inner
    axes that follow one another in all of them are one loop. `steps` has those of each array."""

    arrays: tuple[Array, ...]
    sizes: tuple[int, ...]
    steps: tuple[tuple[int, ...], ...]

    @staticmethod
    def over(*arrays: Array, line: int | None = None) -> _Loops:
        """The loops; with `line`, the innermost axis is taken to be so long."""
        first = arrays[0]
        axes = [axis for axis in first.order if first.shape[axis] > 1]
        sizes = [first.shape[axis] for axis in axes]
        steps = [[one.strides[axis] for axis in axes] for one in arrays]
        if line is not None and axes and axes[-1] == 1:
            sizes[-1] = line
        elif len(axes) > 2 and sizes[-1] < SHORT:
            beside = next((place for place in range(1, len(axes)) if steps[-1][place] == 1), len(axes) - 1)
            for one in (axes, sizes, *steps):
                one.append(one.pop(beside))
        place = len(axes) - 1
        while place >= 2 and all(one[place - 1] == one[place] * sizes[place] for one in steps):
            sizes[place - 1 : place + 1] = [sizes[place - 1] * sizes[place]]
            for one in steps:
                one[place - 1 : place + 1] = [one[place]]
            place -= 1
        return _Loops(arrays, tuple(sizes), tuple(tuple(one) for one in steps))

    def at(self, which: int) -> str:
        """An element of one of the arrays."""
        array, steps = self.arrays[which], self.steps[which]
        terms = [f"i{number}*{step}" for number, step in enumerate(steps)]
        return f"{array.name}[{' + '.join([str(array.offset), *terms])}]"

    def rows(self, threads: int) -> str:
        """C that defines a thread's part of the outermost loop."""
        return rows_of(self.sizes[0] if self.sizes else 1, threads)

    def nest(self, first: int, body: str, simd: str = "") -> str:
        """The loops from number `first` on around C."""
        loops = []
        for number, size in list(enumerate(self.sizes))[first:]:
            pragma = f'_Pragma("omp simd{simd}") ' if number == len(self.sizes) - 1 else ""
            start, end = ("from", "to") if number == 0 else ("0", str(size))
            loops.append(f"{pragma}for (long i{number} = {start}; i{number} < {end}; i{number}++)")
        return " ".join([*loops, body])


def _quantized(program: Program, array: Array, to: Array, whole: Array, window: Window) -> _Image:
    """As bytes, with one step for each sample; borders are bytes of zero from the beginning."""
    zero = UNSIGNED if program.is_nonnegative(array) else SIGNED
    program.filled[whole.name] = zero
    n, per = array.shape[0], math.prod(window.answers(array.shape[2:]))
    scales = program.room((n * per,)).name
    read = array.read(to.index)
    walk = _Loops.over(to, array)
    lies = [axis for axis in array.order if array.shape[axis] > 1] == [axis for axis in to.order if to.shape[axis] > 1]
    ranged = _Loops.over(array, line=program.line_of(array)) if lies else walk
    element = ranged.at(0 if lies else 1)
    largest = f"{{ const float x = __builtin_fabsf({element}); high = x > high ? x : high; odd += x * 0.0f; }}"
    write = f"{walk.at(0)} = low_byte({walk.at(1)} * by + ({zero}.0f + TO_WHOLE));"
    steps = f"const float step = step_of(high, {255 if zero == UNSIGNED else 127}.0f, odd), by = 1.0f / step;"
    simd, rows = " reduction(max:high) reduction(+:odd)", walk.rows(program.threads)
    if n > 1:
        text = (
            f"  {{ {rows}\n    for (long i0 = from; i0 < to; i0++) {{ float high = 0.0f, odd = 0.0f;\n"
            f"      {ranged.nest(1, largest, simd)}\n"
            f"      {steps} for (long e = 0; e < {per}; e++) {scales}[i0*{per} + e] = step;\n"
            f"      {walk.nest(1, write)} }} }}"
        )
        program.add(text, (read,), (whole.divided(), Read(scales, n, per)))
        return _Image(whole, whole.divided(), scales, zero)
    partial = program.room((program.threads * 16,)).name
    found = (
        f"  {{ {rows} float high = 0.0f, odd = 0.0f;\n    {ranged.nest(0, largest, simd)}\n"
        f"    {partial}[t*16] = high + odd; }}"
    )
    program.add(found, (read,), (Read(partial, None),))
    outer, inner = divided(window.answers(array.shape[2:]))
    if window.is_pointwise and outer > 1:  # what reads bytes are the answers at their places, in the same thread
        told = f"for (long e = from*{inner}; e < to*{inner}; e++) {scales}[e] = step;"
        writes = (whole.divided(), Read(scales, outer, inner))
    else:
        told = f"if (t == 0) for (long e = 0; e < {per}; e++) {scales}[e] = step;"
        writes = (Read(whole.name, None), Read(scales, None))
    text = (
        f"  {{ {rows} float high = 0.0f, odd = 0.0f; for (long e = 0; e < {program.threads}; e++) "
        f"{{ const float x = {partial}[e*16]; high = x > high ? x : high; odd += x * 0.0f; }}\n"
        f"    {steps} {told}\n    {walk.nest(0, write)} }}"
    )
    program.add(text, (read, Read(partial, None)), writes)
    return _Image(whole, writes[0], scales, zero)
