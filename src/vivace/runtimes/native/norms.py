"""Normalizations: of the last axis, line by line; of channels, by numbers that are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import Node

from vivace.codegen.arrays import FLOAT, Array, Value, stored
from vivace.codegen.lowering import shape_of
from vivace.codegen.operators.walk import OPERATORS
from vivace.codegen.panels import Ending
from vivace.core.errors import NotApplicable
from vivace.runtimes.native.lowering import Program, Waiting
from vivace.runtimes.native.operands import each_line, line_index, own


def layer_norm(
    program: Program, node: Node, value: Value, shape: Sequence[int], weight: Any = None, bias: Any = None,
    eps: float = 1e-5, *_: Any,
) -> Value:  # fmt: skip
    """Each line less its mean, over its spread."""
    if len(shape) != 1:
        raise NotApplicable(f"there is no C for {node.target} over several axes")
    scaled = "y" if weight is None else f"y*{weight.at(('k',))}"
    ending = scaled if bias is None else f"{scaled} + {bias.at(('k',))}"
    k = value.shape[-1]
    body = (
        f'_Pragma("omp simd") for (long k = 0; k < {k}; k++) line[k] = $X;\n'
        f"      const float mean = line_sum<{k}>(line) * {1 / k!r}f;\n"
        f'      _Pragma("omp simd") for (long k = 0; k < {k}; k++) line[k] -= mean;\n'
        f"      const float by = 1.0f / __builtin_sqrtf(line_squares<{k}>(line) * {1 / k!r}f + {float(eps)!r}f);\n"
        f'      _Pragma("omp simd") for (long k = 0; k < {k}; k++) {{ const float y = line[k] * by; $Y = {ending}; }}'
    )
    return _by_lines(program, value, body)


def rms_norm(
    program: Program, node: Node, value: Value, shape: Sequence[int], weight: Any = None, eps: float | None = None
) -> Value:
    """Each line over the root of the mean of its squares."""
    if len(shape) != 1:
        raise NotApplicable(f"there is no C for {node.target} over several axes")
    k, least = value.shape[-1], torch.finfo(torch.float32).eps if eps is None else eps
    body = (
        f'_Pragma("omp simd") for (long k = 0; k < {k}; k++) line[k] = $X;\n'
        f"      const float by = 1.0f / __builtin_sqrtf(line_squares<{k}>(line) * {1 / k!r}f + {float(least)!r}f);\n"
        f'      _Pragma("omp simd") for (long k = 0; k < {k}; k++) '
        f"$Y = line[k] * by{'' if weight is None else '*' + weight.at(('k',))};"
    )
    return _by_lines(program, value, body)


def softmax(program: Program, node: Node, value: Value, dim: int, *_: Any) -> Value:
    """Each line's exponentials over their sum."""
    kept = "const float x = expf(line[k] - high); line[k] = x; sum += x;"
    return _exponentials(program, node, value, dim, kept, "const float by = 1.0f / sum;", "line[k] * by")


def log_softmax(program: Program, node: Node, value: Value, dim: int, *_: Any) -> Value:
    """The logarithms of these."""
    less = "const float less = high + logf(sum);"
    return _exponentials(program, node, value, dim, "sum += expf(line[k] - high);", less, "line[k] - less")


def _exponentials(program: Program, node: Node, value: Value, dim: int, each: str, between: str, ending: str) -> Value:
    if dim % len(value.shape) != len(value.shape) - 1:
        raise NotApplicable(f"there is no C for {node.target} but along the last axis")
    k = value.shape[-1]
    body = (
        f'float high = -__builtin_inff(); _Pragma("omp simd reduction(max:high)") for (long k = 0; k < {k}; k++) '
        f"{{ const float x = $X; line[k] = x; high = x > high ? x : high; }}\n      float sum = 0.0f;\n"
        f'      _Pragma("omp simd reduction(+:sum)") for (long k = 0; k < {k}; k++) {{ {each} }}\n'
        f'      {between} _Pragma("omp simd") for (long k = 0; k < {k}; k++) $Y = {ending};'
    )
    return _by_lines(program, value, body)


def _by_lines(program: Program, value: Value, body: str) -> Value:
    """A value of the same shape whose lines are made by C, from elements `$X` to elements `$Y`."""
    whole = program.lines(value.shape[:-1], value.shape[-1])
    to = Array(whole.name, value.shape, whole.strides)
    index = line_index(value.shape)
    text = f"float line[{value.shape[-1]}]; " + body.replace("$X", value.at(index)).replace("$Y", to.at(index))
    program.add(each_line(program, to, text), value.reads(index), (own(to),))
    return stored(to)


def length(
    program: Program, node: Node, value: Value, power: float = 2, dims: Any = None, keepdim: bool = False, **_: Any
) -> Value:
    """linalg_vector_norm: the root of the sum of squares."""
    if power != 2:
        raise NotApplicable(f"there is no C for {node.target} of order {power}")
    squares = program.formula("mul", [value, value], value.shape, FLOAT)
    found: Value = OPERATORS["sum"](program, node, squares, dims, keepdim)
    return program.formula("sqrt", [found], shape_of(node), FLOAT)


def batch_norm(
    program: Program, node: Node, value: Value, weight: Any, bias: Any, mean: Any, variance: Any, training: bool,
    momentum: float, eps: float, *_: Any,
) -> Value:  # fmt: skip
    """Channels scaled and moved by known numbers; a part of the product before it, if that can be."""
    told = [program.known(one) for one in (mean, variance)]
    if training or told[0] is None or told[1] is None:
        raise NotApplicable(f"there is no C for {node.target} in training")
    scale = (told[1].double() + eps).rsqrt()
    if weight is not None:
        scale = scale * program.known(weight).double()  # type: ignore[union-attr]
    move = -told[0].double() * scale
    if bias is not None:
        move = move + program.known(bias).double()  # type: ignore[union-attr]
    if isinstance(value, Waiting) and value.layout[-1] == 1 and value.ending == Ending() and value.weight is not None:
        before = torch.zeros_like(move) if value.bias is None else value.bias.double()
        weight = (value.weight.double() * scale[:, None, None]).float()
        return dataclasses.replace(value, weight=weight, bias=(before * scale + move).float())
    value = program.written(value)
    channel = (1, len(scale), *[1] * (len(value.shape) - 2))
    scaled = program.formula("mul", [value, _known(program, scale, channel)], value.shape, FLOAT)
    return program.formula("plus", [scaled, _known(program, move, channel)], shape_of(node), FLOAT)


def _known(program: Program, numbers: torch.Tensor, shape: tuple[int, ...]) -> Value:
    return stored(program.constant(numbers.float().reshape(shape)))


NORMS: Mapping[str, Callable[..., Any]] = {
    "layer_norm": layer_norm, "rms_norm": rms_norm, "softmax": softmax, "_softmax": softmax, "log_softmax": log_softmax,
    "_log_softmax": log_softmax, "batch_norm": batch_norm, "linalg_vector_norm": length,
}  # fmt: skip
"""By the operator's name."""
