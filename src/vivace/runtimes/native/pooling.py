"""The largest or the mean of windows of an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.fx import Node

from vivace.codegen.arrays import Value
from vivace.codegen.arrays import stored as as_value
from vivace.codegen.lowering import shape_of
from vivace.core.errors import NotApplicable
from vivace.runtimes.native import images
from vivace.runtimes.native.lowering import Program
from vivace.runtimes.native.windows import each_axis


def largest(
    program: Program, node: Node, value: Value, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False,
) -> Value:  # fmt: skip
    """max_pool1d, max_pool2d."""
    axes = len(value.shape) - 2
    sizes, pads, apart = (each_axis(one, axes) for one in (kernel, padding, dilation))
    steps = each_axis(stride, axes) if stride not in ((), []) else sizes
    if axes not in (1, 2):
        raise NotApplicable(f"there is no C for {node.target} of {axes} axes")
    found = node.meta["val"]
    shape = tuple(found[0].shape) if isinstance(found, tuple) else shape_of(node)
    windows = [
        [range(max(0, first), min(last, length)) for first, last in _spans(count, size, step, pad)]
        if apart == (1,) * axes
        else _none(node)
        for count, size, step, pad, length in zip(shape[2:], sizes, steps, pads, value.shape[2:], strict=True)
    ]
    return _pooled(program, value, shape, windows, ("-__builtin_inff()", "x > a || x != x ? x : a", "a"))


def largest_and_where(program: Program, node: Node, value: Value, *how: Any) -> list[Value | None]:
    """max_pool2d_with_indices, of which only the elements are read."""
    if any(user.args[1] != 0 and user.users for user in node.users):
        raise NotApplicable(f"there is no C for {node.target} where the places are asked for")
    return [largest(program, node, value, *how), None]


def mean(
    program: Program, node: Node, value: Value, kernel: Any, stride: Any = (), padding: Any = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: Any = None,
) -> Value:  # fmt: skip
    """avg_pool1d, avg_pool2d: of elements of the image, or with zeros around it that count too."""
    axes = len(value.shape) - 2
    sizes, pads = each_axis(kernel, axes), each_axis(padding, axes)
    steps = each_axis(stride, axes) if stride not in ((), []) else sizes
    if axes not in (1, 2):
        raise NotApplicable(f"there is no C for {node.target} of {axes} axes")
    shape = shape_of(node)
    spans = [_spans(*one) for one in zip(shape[2:], sizes, steps, pads, strict=True)]
    lengths = value.shape[2:]
    windows = [
        [range(max(0, first), min(last, length)) for first, last in each]
        for each, length in zip(spans, lengths, strict=True)
    ]
    if divisor_override:
        return _means(program, value, shape, windows, by=f"{float(divisor_override)!r}f")
    counts = [
        [min(last, length + pad) - first for first, last in each]
        for each, length, pad in zip(spans, lengths, pads, strict=True)
    ]
    return _means(program, value, shape, windows, counts if count_include_pad else None)


def adaptive(program: Program, node: Node, value: Value, sizes: Any) -> Value:
    """adaptive_avg_pool1d, adaptive_avg_pool2d."""
    shape = shape_of(node)
    windows = [
        [range(place * length // count, -(-(place + 1) * length // count)) for place in range(count)]
        for length, count in zip(value.shape[2:], shape[2:], strict=True)
    ]
    return _means(program, value, shape, windows)


def _none(node: Node) -> Any:
    raise NotApplicable(f"there is no C for {node.target} with windows that have gaps")


def _spans(count: int, size: int, step: int, pad: int) -> list[tuple[int, int]]:
    return [(place * step - pad, place * step - pad + size) for place in range(count)]


def _means(
    program: Program, value: Value, shape: Sequence[int], windows: list[list[range]],
    counts: list[list[int]] | None = None, by: str = "(float)count",
) -> Value:  # fmt: skip
    return _pooled(program, value, shape, windows, ("0.0f", "a + x", f"a / {by}"), counts)


def _pooled(
    program: Program, value: Value, shape: Sequence[int], windows: list[list[range]], how: tuple[str, str, str],
    counted: list[list[int]] | None = None,
) -> Value:  # fmt: skip
    """Elements put together over a window for each axis of the image, channels side by side. `how` they are, in C: what
    it begins with, the next `a` from `a` and an element `x`, and what is stored; `count` is how many elements there
    are, or, along each axis, as many as are `counted`."""
    begin, add, end = how
    array = program.stored(value)
    n, channels, *counts = shape
    to = images.channels_last(program, shape)
    tables = [(program.table([w.start for w in one]), program.table([w.stop for w in one])) for one in windows]
    part, heads, names = images.each_place(program, n, counts)
    walks = " ".join(
        f"for (long z{axis} = {first}[{name}]; z{axis} < {last}[{name}]; z{axis}++)"
        for axis, (name, (first, last)) in enumerate(zip(names, tables, strict=True))
    )
    lengths = counted or [[len(window) for window in one] for one in windows]
    count = " * ".join(f"{program.table(one)}[{name}]" for one, name in zip(lengths, names, strict=True))
    line = f'_Pragma("omp simd") for (long c = 0; c < {channels}; c++)'
    element = array.at(("i", "c", *(f"z{axis}" for axis in range(len(counts)))))
    text = (
        f"  {{ {part}\n"
        f"    {heads} {{ const long count = {count}; (void)count;\n"
        f"      float line[{channels}]; {line} line[c] = {begin};\n"
        f"      {walks} {line} {{ const float x = {element}, a = line[c]; line[c] = {add}; }}\n"
        f"      {line} {{ const float a = line[c]; {to.at(('i', 'c', *names))} = {end}; }} }} }}"
    )
    images.add_each_place(program, text, array, to)
    return as_value(to)


POOLING: Mapping[str, Callable[..., Any]] = {
    "max_pool1d": largest, "max_pool2d": largest, "max_pool2d_with_indices": largest_and_where,
    "avg_pool1d": mean, "avg_pool2d": mean,
    "adaptive_avg_pool1d": adaptive, "adaptive_avg_pool2d": adaptive,
}  # fmt: skip
"""By the operator's name."""
