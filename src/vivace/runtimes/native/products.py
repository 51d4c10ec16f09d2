"""Linear layers, convolutions and products of matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.fx import Node

from vivace.codegen.arrays import FLOAT, Array, Value, stored
from vivace.codegen.lowering import shape_of
from vivace.codegen.operators import batches
from vivace.codegen.panels import INT8, Ending
from vivace.core.errors import NotApplicable
from vivace.runtimes.native import depthwise, images, matrices
from vivace.runtimes.native.lowering import Program, is_narrow, narrowest, rounds_operands, waiting
from vivace.runtimes.native.operands import lines_of
from vivace.runtimes.native.windows import Bordered, Window, borders, each_axis


def linear(program: Program, node: Node, value: Value, weight: Any, bias: Any = None) -> Value:
    """y = x w' + b, for rows of whatever leading axes."""
    known = program.known(weight)
    if known is None or (bias is not None and program.known(bias) is None):
        raise NotApplicable(f"there is no C for {node.target} with weights that are computed")
    return times(program, node, value, known, program.known(bias))


def times(program: Program, node: Node, value: Value, weight: Tensor, bias: Tensor | None) -> Value:
    """A value (..., k) by a constant weight (columns, k)."""
    shape = (*value.shape[:-1], weight.shape[0])
    precision = narrowest(program.precision(node.name), program.vector, is_narrow(node))

    def make(weight: Tensor, bias: Tensor | None, ending: Ending) -> Array:
        rows = lines_of(program, value, precision)
        to = program.lines(shape[:-1], shape[-1])
        program.panel_product(weight, bias, rows, to, _line(to), ending, precision)
        return to

    return waiting(shape, make, weight.float()[:, None, :], bias, None)


def _line(to: Array) -> int:
    lanes = [step for step, size in zip(to.strides[:-1], to.shape[:-1], strict=True) if size > 1]
    return min(lanes) if lanes else to.strides[-2] if len(to.strides) > 1 else 0


def convolution(
    program: Program, node: Node, value: Value, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Value:  # fmt: skip
    """conv1d, conv2d."""
    axes = len(value.shape) - 2
    known, told = program.known(weight), program.known(bias)
    if known is None or (bias is not None and told is None) or axes not in (1, 2):
        raise NotApplicable(f"there is no C for {node.target} of this kind")
    steps, apart = each_axis(stride, axes), each_axis(dilation, axes)
    kernel = tuple(known.shape[2:])
    window = Window(kernel, steps, *borders(padding, kernel, apart), apart, groups)
    if isinstance(value, Bordered) and value.inner is not None:
        window, value = window.around(value), value.inner
    shape = shape_of(node)
    order = images.order_of(len(shape))
    if groups > 1 and known.shape[:2] == (groups, 1):
        return depthwise.convolution(program, shape, value, known.float(), told, window)
    precision = narrowest(program.precision(node.name), program.vector, is_narrow(node))

    def make(weight: Tensor, bias: Tensor | None, ending: Ending) -> Array:
        ready = program.in_bytes(value) if precision == INT8 and window.is_pointwise and groups == 1 else None
        whole = ready or images.rows(program, stored(program.stored(value)), window, precision)
        to = images.channels_last(program, shape)
        each = shape[1] // groups
        for group in range(groups):
            rows = images.of_group(whole, group, value.shape[1] // groups, precision)
            part = weight[group * each : (group + 1) * each].reshape(each, len(rows.segments), rows.run)
            told = None if bias is None else bias[group * each : (group + 1) * each]
            if groups == 1:
                program.panel_product(part, told, rows, to, to.strides[-1], ending, precision)
            else:
                own = images.channels_last(program, (shape[0], each, *shape[2:]))
                program.panel_product(part, told, rows, own, own.strides[-1], Ending(), precision)
                matrices.copy(program, own, to, group * each)
        return to

    lines = known.float().movedim(1, -1)  # (columns, *kernel, channels)
    found = waiting(shape, make, lines.reshape(lines.shape[0], 1, -1), told, order)
    return found if groups == 1 else stored(program.stored(found))


def any_convolution(
    program: Program, node: Node, value: Value, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any,
    is_transposed: bool, output_padding: Any, groups: int,
) -> Value:  # fmt: skip
    """convolution, which PyTorch takes others apart into."""
    if is_transposed:
        return transposed_convolution(
            program, node, value, weight, bias, stride, padding, output_padding, groups, dilation
        )
    return convolution(program, node, value, weight, bias, stride, padding, dilation, groups)


def transposed_convolution(
    program: Program, node: Node, value: Value, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Value:  # fmt: skip
    """conv_transpose2d whose windows lie side by side: every place gives its own block of the answer."""
    axes = len(value.shape) - 2
    known, told = program.known(weight), program.known(bias)
    kernel = () if known is None else tuple(known.shape[2:])
    around = (*each_axis(padding, axes), *each_axis(output_padding, axes))
    fits = each_axis(stride, axes) == kernel and not any(around)
    fits = fits and set(each_axis(dilation, axes)) == {1}
    if known is None or (bias is not None and told is None) or groups != 1 or not fits or axes != 2:
        raise NotApplicable(f"there is no C for {node.target} but with windows side by side")
    n, _, height, width = value.shape
    down, across = kernel
    columns = known.shape[1]
    lines = known.float().permute(2, 3, 1, 0).reshape(-1, known.shape[0])  # (down, across, columns), channels
    precision = narrowest(program.precision(node.name), program.vector, is_narrow(node))
    rows = images.rows(program, stored(program.stored(value)), Window.of_places(2), precision)
    repeated = None if told is None else told.float().repeat(down * across)
    to = program.lines((n, height, width), lines.shape[0])
    program.panel_product(lines[:, None], repeated, rows, to, to.strides[-2], Ending(), precision)

    def inner(index: tuple[str, ...]) -> tuple[str, ...]:
        sample, channel, y, x = index
        place = f"((({y})%{down})*{across} + ({x})%{across})*{columns} + {channel}"
        return (sample, f"(({y})/{down})", f"(({x})/{across})", place)

    made = stored(to)
    found = Value(
        shape_of(node), FLOAT, lambda i: made.at(inner(i)), lambda i: made.reads(inner(i)), None, False,
        images.order_of(4),
    )  # fmt: skip
    return stored(program.stored(found))


def matrix_product(program: Program, node: Node, a: Value, b: Value) -> Value:
    """matmul, mm, bmm: by a constant matrix as a linear layer, else matrix by matrix."""
    known = program.known(b)
    if known is not None and known.dim() == 2 and len(a.shape) >= 2:
        return times(program, node, a, known.t().contiguous(), None)
    return batches.product(program, node, a, b, rounds_operands(program, node))


def product_and_row(
    program: Program, node: Node, bias: Value, a: Value, b: Value, beta: float = 1, alpha: float = 1
) -> Value:
    """addmm with constant operands."""
    known, told = program.known(b), program.known(bias)
    if known is None or told is None or beta != 1 or alpha != 1 or told.dim() != 1:
        raise NotApplicable(f"there is no C for {node.target} with operands that are computed")
    return times(program, node, a, known.t().contiguous(), told.expand(known.shape[1]))


PRODUCTS: Mapping[str, Callable[..., Any]] = {
    "linear": linear, "conv1d": convolution, "conv2d": convolution, "convolution": any_convolution,
    "conv_transpose2d": transposed_convolution,
    "matmul": matrix_product, "mm": matrix_product, "bmm": matrix_product, "addmm": product_and_row,
}  # fmt: skip
"""By the operator's name."""
