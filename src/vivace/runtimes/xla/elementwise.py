"""ATen operators in JAX, element by element; made by `table`, so that nothing here is imported before it is needed."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import torch

Array = Any
SQRT_HALF = 0.7071067811865476


def jax_dtype(dtype: torch.dtype) -> Any:
    """JAX's dtype of torch's.

    >>> import torch
    >>> str(jax_dtype(torch.bfloat16))  # doctest: +SKIP
    'bfloat16'
    """
    return jnp.dtype(str(dtype).removeprefix("torch."))


def _add(x: Array, y: Any, alpha: Any = 1) -> Array:
    return jnp.add(x, y if alpha == 1 else jnp.multiply(y, alpha))


def _sub(x: Array, y: Any, alpha: Any = 1) -> Array:
    return jnp.subtract(x, y if alpha == 1 else jnp.multiply(y, alpha))


def _rsub(x: Array, y: Any, alpha: Any = 1) -> Array:
    return _sub(y, x, alpha)


def _div(x: Array, y: Any, rounding_mode: str | None = None) -> Array:
    if rounding_mode == "floor":
        return jnp.floor_divide(x, y)
    quotient = jnp.true_divide(x, y)
    return quotient if rounding_mode is None else jnp.trunc(quotient)


def _clamp(x: Array, low: Any = None, high: Any = None) -> Array:
    x = x if low is None else jnp.maximum(x, low)
    return x if high is None else jnp.minimum(x, high)


def _gelu(x: Array, approximate: str = "none") -> Array:
    return jax.nn.gelu(x, approximate=approximate == "tanh")


def _softplus(x: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    return jnp.where(x * beta > threshold, x, jnp.log1p(jnp.exp(jnp.minimum(x * beta, threshold))) / beta)


def _elu(x: Array, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Array:
    return scale * jnp.where(x > 0, x, alpha * jnp.expm1(jnp.minimum(x, 0) * input_scale))


def _masked_fill(x: Array, mask: Array, value: Any) -> Array:
    return jnp.where(mask, jnp.asarray(value, x.dtype), x)


def _to(x: Array, *given: Any, dtype: torch.dtype | None = None, **ignored: Any) -> Array:
    """All overloads of `to`: the dtype is wherever a torch.dtype stands; devices and layouts are nothing here."""
    found = next((one for one in (dtype, *given) if isinstance(one, torch.dtype)), None)
    return x if found is None else x.astype(jax_dtype(found))


def _same(x: Array, *_: Any, **__: Any) -> Array:
    return x


def _summed(x: Array) -> Array:
    """16-bit floats in float32, in which PyTorch's kernels sum them."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _softmax(x: Array, dim: int, *_: Any, dtype: torch.dtype | None = None) -> Array:
    return jax.nn.softmax(_summed(_to(x, *_, dtype=dtype)), axis=dim)


def _log_softmax(x: Array, dim: int, *_: Any, dtype: torch.dtype | None = None) -> Array:
    return jax.nn.log_softmax(_summed(_to(x, *_, dtype=dtype)), axis=dim)


def table() -> dict[str, Any]:
    """ATen's names to functions of the same arguments."""
    same = dict.fromkeys(
        ("clone", "contiguous", "detach", "detach_", "alias", "lift_fresh_copy", "dropout", "feature_dropout"), _same
    )
    unary = {
        name: getattr(jnp, name)
        for name in (
            "abs", "cos", "sin", "tan", "tanh", "exp", "expm1", "log", "log1p", "log2", "sqrt", "floor", "ceil",
            "round", "sign", "square", "isnan", "isinf", "trunc", "reciprocal", "logical_not", "bitwise_not",
        )
    }  # fmt: skip
    binary = {
        "maximum": jnp.maximum, "minimum": jnp.minimum, "pow": jnp.power, "mul": jnp.multiply, "eq": jnp.equal,
        "ne": jnp.not_equal, "lt": jnp.less, "le": jnp.less_equal, "gt": jnp.greater, "ge": jnp.greater_equal,
        "logical_and": jnp.logical_and, "logical_or": jnp.logical_or, "bitwise_and": jnp.bitwise_and,
        "bitwise_or": jnp.bitwise_or, "remainder": jnp.remainder, "fmod": jnp.fmod, "floor_divide": jnp.floor_divide,
        "__and__": jnp.bitwise_and, "__or__": jnp.bitwise_or, "atan2": jnp.arctan2,
    }  # fmt: skip
    shaped = {
        "add": _add, "sub": _sub, "rsub": _rsub, "div": _div, "true_divide": jnp.true_divide, "where": jnp.where,
        "clamp": _clamp, "clamp_min": _clamp, "clamp_max": lambda x, high: jnp.minimum(x, high),
        "masked_fill": _masked_fill, "to": _to, "_to_copy": _to, "type_as": lambda x, like: x.astype(like.dtype),
    }  # fmt: skip
    activations = {
        "relu": jax.nn.relu, "relu6": jax.nn.relu6, "sigmoid": jax.nn.sigmoid, "silu": jax.nn.silu, "gelu": _gelu,
        "hardtanh": _hardtanh, "hardswish": jax.nn.hard_swish, "hardsigmoid": jax.nn.hard_sigmoid,
        "leaky_relu": lambda x, slope=0.01: jnp.where(x > 0, x, x * slope), "softplus": _softplus, "elu": _elu,
        "log_sigmoid": jax.nn.log_sigmoid, "mish": jax.nn.mish, "erf": jax.scipy.special.erf, "neg": jnp.negative,
        "rsqrt": jax.lax.rsqrt, "softmax": _softmax, "_softmax": _softmax, "log_softmax": _log_softmax,
        "_log_softmax": _log_softmax,
    }  # fmt: skip
    return {**same, **unary, **binary, **shaped, **activations}


def _hardtanh(x: Array, low: float = -1.0, high: float = 1.0) -> Array:
    return jnp.clip(x, low, high)
