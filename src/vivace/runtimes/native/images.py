"""Images and sequences as convolutions read them: channels side by side, borders already around them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from vivace.codegen.arrays import Array, Read, Value
from vivace.codegen.panels import BFLOAT16, FLOAT32, INT8, PER_WORD, Rows
from vivace.codegen.statements import rows_of
from vivace.runtimes.native.lowering import Program
from vivace.runtimes.native.operands import SIGNED, UNSIGNED

KINDS = {FLOAT32: ("float", 4), BFLOAT16: ("short", 2), INT8: ("byte", 1)}
"""The kind of elements, and their bytes."""


@dataclasses.dataclass(frozen=True)
class Window:
    """How a convolution looks at an image, axis by axis (one axis for sequences)."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1

    def answers(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """The sizes of what it makes of an image."""
        return tuple(
            (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, pad, dilation in zip(
                sizes, self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )


def order_of(rank: int) -> tuple[int, ...]:
    """Channels last: the batch, the axes of the image, the channels.

    >>> order_of(4)
    (0, 2, 3, 1)
    """
    return (0, *range(2, rank), 1)


def rows(program: Program, value: Value, window: Window, precision: str, merged: bool = True) -> Rows:
    """The rows of an image (n, channels, *sizes): one for each place of the answer, its window's elements, in as few
    runs as can be unless they are not to be `merged`."""
    image = _prepared(program, value, window, precision)
    size = KINDS[precision][1]
    steps = [step * size for step in image.array.strides]
    answers = window.answers(value.shape[2:])
    places = [0]
    axes = zip(answers, window.stride, steps[2:], strict=True)
    for length, step in [(value.shape[0], steps[0]), *((n, s * step) for n, s, step in axes)]:
        places = [place + number * step for place in places for number in range(length)]
    *outside, across = window.kernel
    is_merged = merged and window.dilation[-1] == 1 and window.groups == 1 and steps[-1] == value.shape[1] * size
    taps = [range(length) for length in (outside if is_merged else window.kernel)]
    segments = [0]
    for axis, tap in enumerate(taps):
        segments = [one + number * window.dilation[axis] * steps[2 + axis] for one in segments for number in tap]
    run = value.shape[1] // window.groups * (across if is_merged else 1)
    long = [length for length in (value.shape[0], *answers) if length > 1]
    outer = long[0] if long else 1
    is_pointwise = {*window.kernel, *window.stride} == {1} and not any(window.padding)
    reads = [image.read if value.shape[0] > 1 or is_pointwise else Read(image.array.name, None)]
    reads += [Read(image.scales, None)] if image.scales else []
    begin = image.array.offset * size
    return Rows(
        image.array.name, tuple(begin + place for place in places), tuple(segments), run, outer, math.prod(long[1:]),
        tuple(reads), image.scales, image.zero,
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
    if precision == FLOAT32 and not any(window.padding) and array.order[-1] == 1 and array.strides[1] == 1:
        return _Image(array, array.divided())
    answers = window.answers(value.shape[2:])
    key = ("image", array, window.padding, precision, answers if precision == INT8 else ())
    if key not in program.prepared:
        program.prepared[key] = _bordered(program, array, window, precision)  # type: ignore[assignment]
    found: _Image = program.prepared[key]  # type: ignore[assignment]
    return found


def _bordered(program: Program, array: Array, window: Window, precision: str) -> _Image:
    """A copy with borders around it, in the precision of the product."""
    kind, _ = KINDS[precision]
    n, channels, *sizes = array.shape
    wide = tuple(size + 2 * pad for size, pad in zip(sizes, window.padding, strict=True))
    # one word more: the last run may be read beyond its end
    room = program.room((n * channels * math.prod(wide) + PER_WORD[INT8],), kind)
    whole = Array.whole(room.name, (n, channels, *wide), kind, order_of(len(array.shape)))
    inner = sum(pad * step for pad, step in zip(window.padding, whole.strides[2:], strict=True))
    to = Array(whole.name, array.shape, whole.strides, kind, inner)
    if precision != INT8:
        text = "narrow({})" if precision == BFLOAT16 else "{}"
        index = to.index
        lines = [*_walk(to, program.threads), f"{to.at(index)} = {text.format(array.at(index))}; }}"]
        program.add("\n    ".join(lines), (array.read(index),), (_part(whole, n),))
        return _Image(whole, _part(whole, n))
    return _quantized(program, array, to, whole, window)


def _part(whole: Array, n: int) -> Read:
    """How a statement writes it whose threads take samples, or lines of the only one."""
    return whole.divided() if n > 1 else Read(whole.name, None)


def _walk(to: Array, threads: int) -> list[str]:
    axes = [axis for axis in to.order if to.shape[axis] > 1]
    lines = [f"  {{ {rows_of(to.shape[axes[0]], threads)}" if axes else "  if (t == 0) {"]
    for number, axis in enumerate(axes):
        pragma = '_Pragma("omp simd") ' if number == len(axes) - 1 else ""
        first, end = ("from", "to") if number == 0 else ("0", str(to.shape[axis]))
        lines.append(f"{pragma}for (long i{number} = {first}; i{number} < {end}; i{number}++)")
    return lines


def _quantized(program: Program, array: Array, to: Array, whole: Array, window: Window) -> _Image:
    """As bytes, with one step for each sample; borders are bytes of zero from the beginning."""
    zero = UNSIGNED if program.is_nonnegative(array) else SIGNED
    program.filled[whole.name] = zero
    n, per = array.shape[0], math.prod(window.answers(array.shape[2:]))
    scales = program.room((n * per,)).name
    index = to.index
    levels = 255 if zero == UNSIGNED else 127
    largest = f"{{ const float x = __builtin_fabsf({array.at(index)}); high = x > high ? x : high; }}"
    write = f"{to.at(index)} = byte_of({array.at(index)} * by + {zero}.0f);"
    axes = [axis for axis in to.order if to.shape[axis] > 1]

    def nest(first: int, body: str, simd: str) -> str:
        loops = []
        for number, axis in list(enumerate(axes))[first:]:
            pragma = f'_Pragma("omp simd{simd}") ' if number == len(axes) - 1 else ""
            start, end = ("from", "to") if number == 0 else ("0", str(to.shape[axis]))
            loops.append(f"{pragma}for (long i{number} = {start}; i{number} < {end}; i{number}++)")
        return " ".join([*loops, body])

    told = f"for (long e = 0; e < {per}; e++) {scales}[%s + e] = step;"
    steps = f"const float step = step_of(high, {levels}.0f), by = 1.0f / step;"
    rows = rows_of(to.shape[axes[0]], program.threads) if axes else "const long from = 0, to = 1;"
    if n > 1:
        text = (
            f"  {{ {rows}\n    for (long i0 = from; i0 < to; i0++) {{ float high = 0.0f;\n      "
            f"{nest(1, largest, ' reduction(max:high)')}\n      {steps} {told % f'i0*{per}'}\n      {nest(1, write, '')} }} }}"
        )
        program.add(text, (array.read(index),), (whole.divided(), Read(scales, n, per)))
        return _Image(whole, whole.divided(), scales, zero)
    partial = program.room((program.threads * 16,)).name
    first = f"  {{ {rows} float high = 0.0f;\n    {nest(0, largest, ' reduction(max:high)')}\n    {partial}[t*16] = high; }}"
    program.add(first, (array.read(index),), (Read(partial, None),))
    alone = f"if (t == 0) {told % '0'}"
    second = (
        f"  {{ {rows} float high = 0.0f; for (long e = 0; e < {program.threads}; e++) "
        f"high = {partial}[e*16] > high ? {partial}[e*16] : high;\n    {steps} {alone}\n    {nest(0, write, '')} }}"
    )
    program.add(second, (array.read(index), Read(partial, None)), (Read(whole.name, None), Read(scales, None)))
    return _Image(whole, Read(whole.name, None), scales, zero)
