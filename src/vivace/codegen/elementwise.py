"""What operators compute of single elements, as C."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from vivace.codegen.arrays import BOOL, FLOAT, LONG, Index, Read, Shape, Value, broadcast, layout_of

FORMULAS = {
    "plus": "{0} + {1}", "minus": "{0} - {1}", "mul": "{0} * {1}", "neg": "-{0}", "div": "{0} / {1}",
    "relu": "({0} > 0 || {0} != {0} ? {0} : 0.0f)", "threshold_backward": "({1} <= {2} ? 0.0f : {0})",
    "where": "({0} ? {1} : {2})",
    "eq": "{0} == {1}", "ne": "{0} != {1}", "lt": "{0} < {1}", "le": "{0} <= {1}", "gt": "{0} > {1}",
    "ge": "{0} >= {1}",
    "logical_not": "!{0}", "bitwise_not": "inverted({0})", "logical_and": "{0} && {1}", "bitwise_and": "{0} & {1}",
    "logical_or": "{0} || {1}", "bitwise_or": "{0} | {1}", "logical_xor": "!{0} != !{1}", "bitwise_xor": "{0} ^ {1}",
    "isnan": "{0} != {0}", "isinf": "__builtin_fabsf({0}) == __builtin_inff()",
    "maximum": "({0} > {1} || {0} != {0} ? {0} : {1})", "minimum": "({0} < {1} || {0} != {0} ? {0} : {1})",
    "abs": "magnitude({0})", "sign": "({0} > 0) - ({0} < 0)", "reciprocal": "1.0f / {0}",
    "sqrt": "__builtin_sqrtf({0})",
    "rsqrt": "1.0f / __builtin_sqrtf({0})", "exp": "expf({0})", "expm1": "expm1f({0})", "log": "logf({0})",
    "log1p": "log1pf({0})",
    "tanh": "tanhf({0})", "erf": "erff({0})", "sigmoid": "1.0f / (1.0f + expf(-{0}))", "sin": "sinf({0})",
    "cos": "cosf({0})", "tan": "tanf({0})", "asin": "asinf({0})", "acos": "acosf({0})", "atan": "atanf({0})",
    "atan2": "atan2f({0}, {1})", "sinh": "sinhf({0})", "cosh": "coshf({0})", "asinh": "asinhf({0})",
    "acosh": "acoshf({0})", "atanh": "atanhf({0})", "log2": "log2f({0})", "log10": "log10f({0})", "exp2": "exp2f({0})",
    "erfc": "erfcf({0})", "hypot": "hypotf({0}, {1})", "fmod": "fmodf({0}, {1})", "floor": "__builtin_floorf({0})",
    "ceil": "__builtin_ceilf({0})", "trunc": "__builtin_truncf({0})", "round": "__builtin_rintf({0})",
    "frac": "({0} - __builtin_truncf({0}))", "remainder": "remainder_of({0}, {1})",
    "floor_divide": "floored({0}, {1})",
    "xlogy": "({1} != {1} ? {1} : {0} == 0 ? 0.0f : {0} * logf({1}))", "power": "powf({0}, {1})",
    "gelu": "gelu({0})", "gelu_tanh": "gelu_tanh({0})",
    "silu": "silu({0})", "at_least": "at_least({0}, {1})", "at_most": "at_most({0}, {1})",
    "tanh_backward": "{0} * (1.0f - {1} * {1})", "sigmoid_backward": "{0} * (1.0f - {1}) * {1}",
}  # fmt: skip
"""By the operator's name (`plus`, `minus`, `power` are parts of others): `{0}` is an element of the first operand."""

COSTLY = frozenset(
    {
        "div", "reciprocal", "sqrt", "rsqrt", "exp", "expm1", "log", "log1p", "tanh", "erf", "sigmoid", "sin", "cos",
        "power", "gelu", "gelu_tanh", "silu", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "asinh", "acosh",
        "atanh", "log2", "log10", "exp2", "erfc", "hypot", "fmod", "remainder", "floor_divide", "xlogy",
    }
)  # fmt: skip
COARSE = {"gelu": "coarse_gelu({0})"}
"""The same with less work, for what is made a byte."""


def formula(name: str, operands: Sequence[Any], shape: Shape, kind: str) -> Value:
    """The value that a formula makes of values and numbers."""
    values = [one for one in operands if isinstance(one, Value)]
    is_float = kind == FLOAT or any(one.kind == FLOAT for one in values)  # whole numbers over each other are none
    inside = FLOAT if is_float or any(isinstance(one, float) for one in operands) else LONG

    def written(form: str, index: Index) -> str:
        texts = [_text(one, index, kind if name == "where" and place else inside) for place, one in enumerate(operands)]
        if name == "div":
            texts = [f"({inside})({text})" for text in texts]  # C divides whole numbers and truths otherwise
        return f"({form.format(*texts)})"

    def reads(index: Index) -> tuple[Read, ...]:
        return tuple(read for one in values for read in one.reads(broadcast(one, index)))

    is_costly = name in COSTLY or any(one.is_costly and one.array is None for one in values)
    at = functools.partial(written, FORMULAS[name])
    coarse = functools.partial(written, COARSE[name]) if name in COARSE else None
    return Value(shape, kind, at, reads, None, is_costly, layout_of(values, shape), coarse)


def _text(operand: Any, index: Index, kind: str) -> str:
    if not isinstance(operand, Value):
        return number(operand, kind)
    text = operand.at(broadcast(operand, index))
    return f"(float)({text})" if kind == FLOAT and operand.kind in (LONG,) else f"({text})"


def number(value: Any, kind: str) -> str:
    """A number as C.

    >>> number(0.1, "float"), number(3, "long")
    ('0.1f', '3L')
    """
    if kind == FLOAT:
        if math.isinf(value):
            return "__builtin_inff()" if value > 0 else "(-__builtin_inff())"
        if math.isnan(value):
            return '__builtin_nanf("")'
        text = repr(float(value))
        return f"({text}f)" if value < 0 else f"{text}f"
    return str(int(bool(value))) if kind == BOOL else f"{int(value)}L"
