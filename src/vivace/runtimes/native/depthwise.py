"""Convolutions with a window of its own for every channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from vivace.codegen.arrays import Read, Value, stored
from vivace.codegen.panels import FLOAT32
from vivace.codegen.statements import rows_of
from vivace.runtimes.native import images
from vivace.runtimes.native.images import Window
from vivace.runtimes.native.lowering import Program


def convolution(
    program: Program, shape: Sequence[int], value: Value, weight: Tensor, bias: Any, window: Window
) -> Value:
    """One answer a channel (weight: channels, 1, *kernel), in float32: what it reads takes longer than its products."""
    groups = images.Window(window.kernel, window.stride, window.padding, window.dilation)
    source = stored(program.stored(value))
    rows = images.rows(program, source, groups, FLOAT32, merged=False)
    channels = weight.shape[0]
    taps = stored(program.constant(weight.reshape(channels, -1).t().contiguous()))
    assert taps.array is not None
    to = images.channels_last(program, shape)
    first = "0.0f" if bias is None else f"{program.constant(bias.float()).name}[c]"
    table, segments = program.table(rows.places), program.table(rows.segments)
    sums = " + ".join(
        f"(*(const float *)(x + {segments}[{tap}] + c*4)) * {taps.array.name}[{tap * channels} + c]"
        for tap in range(len(rows.segments))
    )
    text = (
        f"  {{ {rows_of(rows.outer, program.threads)}\n"
        f"    for (long m = from*{rows.inner}; m < to*{rows.inner}; m++) {{\n"
        f"const char *x = (const char *){rows.name} + {table}[m]; float *y = {to.name} + m*{to.strides[-1]};\n"
        f'      _Pragma("omp simd") for (long c = 0; c < {channels}; c++) y[c] = {first} + {sums}; }} }}'
    )
    written = to.divided() if rows.outer > 1 else Read(to.name, None)
    program.add(text, rows.reads, (written,))
    return stored(to)
