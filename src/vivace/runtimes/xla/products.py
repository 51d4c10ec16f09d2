"""ATen operators in JAX that multiply by weights, normalize, pool, attend or recur.

Sums of 16-bit numbers, and what is computed of them within one operator, are in float32 as in PyTorch's kernels: a
result is rounded once, when the operator ends (`graph`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from vivace.runtimes.xla.elementwise import Array

_NAMES = {1: "W", 2: "HW", 3: "DHW"}


def _wide(x: Array) -> Any:
    """The dtype of sums of such numbers: float32 for 16-bit floats, else their own."""
    return jnp.promote_types(x.dtype, jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x.dtype


def _product(x: Array, y: Array) -> Array:
    """The matrix product, its sums not rounded to fewer bits."""
    return jnp.matmul(x, y, preferred_element_type=_wide(y))


def _linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    y = _product(x, weight.T)
    return y if bias is None else y + bias


def _addmm(bias: Array, x: Array, weight: Array, beta: float = 1, alpha: float = 1) -> Array:
    return beta * bias + alpha * _product(x, weight)


def _pairs(value: Any, count: int) -> tuple[int, ...]:
    values = [value] if isinstance(value, int) else list(value)
    return tuple(values * count if len(values) == 1 else values)


def _conv(
    x: Array, weight: Array, bias: Array | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Array:  # fmt: skip
    count = weight.ndim - 2
    names = _NAMES[count]
    unbatched = x.ndim == count + 1
    x = x[None] if unbatched else x
    if isinstance(padding, str):
        pads: Any = padding.upper()
    else:
        pads = [(n, n) for n in _pairs(padding, count)]
    y = lax.conv_general_dilated(
        x, weight, _pairs(stride, count), pads, rhs_dilation=_pairs(dilation, count), feature_group_count=groups,
        dimension_numbers=(f"NC{names}", f"OI{names}", f"NC{names}"), preferred_element_type=_wide(x),
    )  # fmt: skip
    y = y if bias is None else y + bias.reshape(1, -1, *(1,) * count)
    return y[0] if unbatched else y


def _convolution(
    x: Array, weight: Array, bias: Array | None, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: int,
) -> Array:  # fmt: skip
    if transposed:
        raise NotImplementedError("a transposed convolution")
    return _conv(x, weight, bias, stride, padding, dilation, groups)


def _along_channels(value: Array | None, x: Array) -> Any:
    return None if value is None else value.reshape(1, -1, *(1,) * (x.ndim - 2))


def _batch_norm(
    x: Array, weight: Array | None, bias: Array | None, mean: Array, var: Array, training: bool, momentum: float,
    eps: float, *_: Any,
) -> Array:  # fmt: skip
    if training:
        raise NotImplementedError("batch normalization with the statistics of the batch")
    scale = lax.rsqrt(_along_channels(var, x).astype(_wide(x)) + eps)
    y = (x - _along_channels(mean, x)) * (scale if weight is None else scale * _along_channels(weight, x))
    return y if bias is None else y + _along_channels(bias, x)


def _batch_norm_tuple(
    x: Array, weight: Array | None, bias: Array | None, mean: Array, var: Array, momentum: float, eps: float
) -> tuple[Array, Any, Any]:
    return _batch_norm(x, weight, bias, mean, var, False, momentum, eps), None, None


def _normalized(x: Array, axes: tuple[int, ...], eps: float) -> tuple[Array, Array, Array]:
    x = x.astype(_wide(x))
    mean = jnp.mean(x, axis=axes, keepdims=True)
    scale = lax.rsqrt(jnp.mean(jnp.square(x - mean), axis=axes, keepdims=True) + eps)
    return (x - mean) * scale, mean, scale


def _native_layer_norm(
    x: Array, shape: Sequence[int], weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array, Array]:
    y, mean, scale = _normalized(x, tuple(range(-len(shape), 0)), eps)
    y = y if weight is None else y * weight
    return (y if bias is None else y + bias), mean, scale


def _layer_norm(
    x: Array, shape: Sequence[int], weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5, *_: Any
) -> Array:
    return _native_layer_norm(x, shape, weight, bias, eps)[0]


def _group_norm(
    x: Array, groups: int, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5, *_: Any
) -> Array:
    grouped = x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
    y = _normalized(grouped, tuple(range(2, grouped.ndim)), eps)[0].reshape(x.shape)
    y = y if weight is None else y * _along_channels(weight, x)
    return y if bias is None else y + _along_channels(bias, x)


def _rms_norm(x: Array, shape: Sequence[int], weight: Array | None = None, eps: float | None = None) -> Array:
    eps = float(jnp.finfo(x.dtype).eps) if eps is None else eps
    x = x.astype(_wide(x))
    y = x * lax.rsqrt(jnp.mean(jnp.square(x), axis=tuple(range(-len(shape), 0)), keepdims=True) + eps)
    return y if weight is None else y * weight


def _windows(x: Array, size: Any, stride: Any, padding: Any, ceil: bool, dilation: Any = 1) -> tuple[Any, ...]:
    """Window, strides, dilations and paddings of all dimensions, of which the last ones are pooled."""
    count = _count(size, x)
    sizes, paddings, dilations = _pairs(size, count), _pairs(padding, count), _pairs(dilation, count)
    strides = _pairs(stride or size, count)
    rest = (1,) * (x.ndim - count)
    pads = [(0, 0)] * (x.ndim - count)
    for n, k, s, p, d in zip(x.shape[-count:], sizes, strides, paddings, dilations, strict=True):
        over = n + 2 * p - d * (k - 1) - 1
        more = (-over) % s if ceil else 0
        if more and (over + more) // s * s >= n + p:  # a window may not begin in the padding behind
            more = 0
        pads.append((p, p + more))
    return (*rest, *sizes), (*rest, *strides), (*rest, *dilations), pads


def _count(size: Any, x: Array) -> int:
    return len(size) if isinstance(size, Sequence) and len(size) > 1 else min(2, x.ndim - 2) if x.ndim > 3 else 1


def _max_pool(x: Array, size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil: bool = False) -> Array:
    window, strides, dilations, pads = _windows(x, size, stride, padding, ceil, dilation)
    return lax.reduce_window(
        x, jnp.asarray(-jnp.inf, x.dtype), lax.max, window, strides, pads, window_dilation=dilations
    )


def _avg_pool(
    x: Array, size: Any, stride: Any = (), padding: Any = 0, ceil: bool = False, with_padding: bool = True,
    divisor: int | None = None,
) -> Array:  # fmt: skip
    window, strides, _, pads = _windows(x, size, stride, padding, ceil)
    if ceil and any(low != high for low, high in pads):
        raise NotImplementedError("average pooling with a last window that reaches over the edge")
    total = lax.reduce_window(x, jnp.zeros((), x.dtype), lax.add, window, strides, pads)
    if divisor is not None or with_padding or not any(low for low, _ in pads):
        return total / (divisor or math.prod(window))
    return total / lax.reduce_window(jnp.ones_like(x), jnp.zeros((), x.dtype), lax.add, window, strides, pads)


def _adaptive_avg_pool(x: Array, size: Any) -> Array:
    sizes = [size] if isinstance(size, int) else list(size)
    for axis, wanted in zip(range(-len(sizes), 0), sizes, strict=True):
        wanted = x.shape[axis] if wanted is None else wanted
        edges = [(i * x.shape[axis] // wanted, -(-(i + 1) * x.shape[axis] // wanted)) for i in range(wanted)]
        means = [jnp.mean(lax.slice_in_dim(x, low, high, axis=axis), axis=axis, keepdims=True) for low, high in edges]
        x = means[0] if wanted == 1 else jnp.concatenate(means, axis)
    return x


def _attention(
    q: Array, k: Array, v: Array, mask: Array | None = None, dropout: float = 0.0, is_causal: bool = False,
    scale: float | None = None, enable_gqa: bool = False,
) -> Array:  # fmt: skip
    if enable_gqa:
        k, v = (jnp.repeat(one, q.shape[-3] // one.shape[-3], axis=-3) for one in (k, v))
    scores = _product(q, jnp.swapaxes(k, -1, -2)) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if is_causal:
        mask = jnp.tril(jnp.ones((q.shape[-2], k.shape[-2]), bool))
    if mask is not None:
        scores = jnp.where(mask, scores, -jnp.inf) if mask.dtype == bool else scores + mask
    return _product(jax.nn.softmax(scores, axis=-1).astype(v.dtype), v)


def _lstm_step(carry: tuple[Array, Array], gates: Array, w_hh: Array, b_hh: Any) -> tuple[tuple[Array, Array], Array]:
    h, c = carry
    i, f, g, o = jnp.split(gates + _product(h.astype(w_hh.dtype), w_hh.T) + b_hh, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h


def _gru_step(h: Array, gates: Array, w_hh: Array, b_hh: Any) -> tuple[Array, Array]:
    own = _product(h.astype(w_hh.dtype), w_hh.T) + b_hh
    (xr, xz, xn), (hr, hz, hn) = jnp.split(gates, 3, axis=-1), jnp.split(own, 3, axis=-1)
    z, n = jax.nn.sigmoid(xz + hz), jnp.tanh(xn + jax.nn.sigmoid(xr + hr) * hn)
    h = (1 - z) * n + z * h
    return h, h


def _recurrent(step: Any, states: int) -> Any:
    """`aten.lstm.input` and `aten.gru.input`: input products of all times at once, then a scan over time.

    States and gates are in float32 at least, as in PyTorch's kernels: a state that is rounded to 16 bits at each time
    drifts.
    """

    def run(
        x: Array, hx: Any, params: Sequence[Array], has_biases: bool, layers: int, dropout: float, train: bool,
        bidirectional: bool, batch_first: bool,
    ) -> tuple[Array, ...]:  # fmt: skip
        start = [state.astype(_wide(x)) for state in (hx if states == 2 else [hx])]
        y = jnp.swapaxes(x, 0, 1) if batch_first else x
        directions, each, last = (2 if bidirectional else 1), (4 if has_biases else 2), []
        if len(params) != layers * directions * each:
            raise NotImplementedError("a recurrent cell with projections")
        for layer in range(layers):
            outputs = []
            for direction in range(directions):
                place = layer * directions + direction
                own = params[place * each : place * each + each]
                b_ih, b_hh = own[2:] if has_biases else (0, 0)
                carry = tuple(state[place] for state in start) if states == 2 else start[0][place]
                gates = _product(y.astype(own[0].dtype), own[0].T) + b_ih
                end, found = lax.scan(
                    lambda c, g, w=own[1], b=b_hh: step(c, g, w, b), carry, gates, reverse=bool(direction)
                )
                outputs.append(found)
                last.append(end if states == 2 else (end,))
            y = jnp.concatenate(outputs, -1)
        finals = tuple(jnp.stack(values) for values in zip(*last, strict=True))
        return (jnp.swapaxes(y, 0, 1) if batch_first else y, *finals)

    return run


def table() -> dict[str, Any]:
    """ATen's names to functions of the same arguments."""
    return {
        "linear": _linear, "matmul": _product, "mm": _product, "bmm": _product, "mv": _product, "addmm": _addmm,
        "baddbmm": _addmm, "einsum": lambda text, tensors, **_: jnp.einsum(text, *tensors), "conv1d": _conv,
        "conv2d": _conv, "conv3d": _conv, "convolution": _convolution, "batch_norm": _batch_norm,
        "_native_batch_norm_legit_no_training": _batch_norm_tuple, "layer_norm": _layer_norm,
        "native_layer_norm": _native_layer_norm, "group_norm": _group_norm, "rms_norm": _rms_norm,
        "max_pool1d": _max_pool, "max_pool2d": _max_pool, "avg_pool1d": _avg_pool, "avg_pool2d": _avg_pool,
        "adaptive_avg_pool1d": _adaptive_avg_pool, "adaptive_avg_pool2d": _adaptive_avg_pool,
        "scaled_dot_product_attention": _attention, "lstm": _recurrent(_lstm_step, 2), "gru": _recurrent(_gru_step, 1),
    }  # fmt: skip
