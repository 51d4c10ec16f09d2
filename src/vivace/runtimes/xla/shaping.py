"""ATen operators in JAX that move, cut, join, gather, make or reduce tensors."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import torch
from jax.scipy.special import logsumexp

from vivace.runtimes.xla.elementwise import Array, jax_dtype


def _view(x: Array, shape: Sequence[Any], *_: Any) -> Array:
    return jnp.reshape(x, tuple(shape))


def _flatten(x: Array, start: int = 0, end: int = -1) -> Array:
    start, end = start % max(1, x.ndim), end % max(1, x.ndim)
    return jnp.reshape(x, (*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]))


def _unflatten(x: Array, dim: int, sizes: Sequence[Any]) -> Array:
    dim %= x.ndim
    return jnp.reshape(x, (*x.shape[:dim], *sizes, *x.shape[dim + 1 :]))


def _expand(x: Array, shape: Sequence[Any], **_: Any) -> Array:
    own = (1,) * (len(shape) - x.ndim) + x.shape
    sizes = [have if _is_minus_one(want) else want for want, have in zip(shape, own, strict=True)]
    return jnp.broadcast_to(x, tuple(sizes))


def _is_minus_one(size: Any) -> bool:
    return isinstance(size, int) and size == -1


def _squeeze(x: Array, dim: Any = None) -> Array:
    if dim is None:
        return jnp.squeeze(x)
    dims = [dim] if isinstance(dim, int) else dim
    return jnp.squeeze(x, tuple(one % x.ndim for one in dims if _is_one(x.shape[one])))


def _is_one(size: Any) -> bool:
    return isinstance(size, int) and size == 1


def _slice(x: Array, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Array:
    end = None if isinstance(end, int) and end >= 2**62 else end
    return x[(slice(None),) * (dim % x.ndim) + (slice(start, end, step),)]


def _split(x: Array, sizes: Any, dim: int = 0) -> list[Array]:
    if not isinstance(sizes, Sequence):
        sizes = [min(sizes, x.shape[dim] - start) for start in range(0, x.shape[dim], sizes)]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [_slice(x, dim, start, start + size) for start, size in zip(starts, sizes, strict=True)]


def _chunk(x: Array, count: int, dim: int = 0) -> list[Array]:
    return _split(x, -(-x.shape[dim] // count), dim)


def _select(x: Array, dim: int, index: Any) -> Array:
    return x[(slice(None),) * (dim % x.ndim) + (index,)]


def _unbind(x: Array, dim: int = 0) -> list[Array]:
    return [_select(x, dim, i) for i in range(x.shape[dim])]


def _index(x: Array, indices: Sequence[Any]) -> Array:
    return x[tuple(slice(None) if index is None else index for index in indices)]


def _transpose(x: Array, first: int = 0, second: int = 1) -> Array:
    return jnp.swapaxes(x, first, second)


def _pad(x: Array, pads: Sequence[Any], mode: Any = "constant", value: Any = None) -> Array:
    if not isinstance(mode, str):  # constant_pad_nd has the value there
        mode, value = "constant", mode
    pairs = [(pads[i], pads[i + 1]) for i in range(0, len(pads), 2)]
    widths = [(0, 0)] * (x.ndim - len(pairs)) + pairs[::-1]
    if mode == "constant":
        return jnp.pad(x, widths, constant_values=value or 0)
    return jnp.pad(x, widths, mode={"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode])


def _arange(*bounds: Any, dtype: Any = None, **_: Any) -> Array:
    start, stop, step = {1: (0, *bounds, 1), 2: (*bounds, 1)}.get(len(bounds), bounds)
    return jnp.arange(start, stop, step, None if dtype is None else jax_dtype(dtype))


def _full(shape: Sequence[Any], value: Any, dtype: Any = None, **_: Any) -> Array:
    return jnp.full(tuple(shape), value, None if dtype is None else jax_dtype(dtype))


def _filled(value: float) -> Any:
    return lambda shape, dtype=torch.float32, **_: _full(shape, value, dtype or torch.float32)


def _like(value: float | None) -> Any:
    def make(x: Array, *given: Any, dtype: Any = None, **_: Any) -> Array:
        return jnp.full_like(x, given[0] if value is None else value, None if dtype is None else jax_dtype(dtype))

    return make


def _new(value: float) -> Any:
    return lambda x, shape, dtype=None, **_: jnp.full(
        tuple(shape), value, x.dtype if dtype is None else jax_dtype(dtype)
    )


def _reduction(function: Any) -> Any:
    def reduce(x: Array, dim: Any = None, keepdim: bool = False, dtype: Any = None, **_: Any) -> Array:
        x = x if dtype is None else x.astype(jax_dtype(dtype))
        return function(x, axis=_axes(dim), keepdims=keepdim)

    return reduce


def _axes(dim: Any) -> Any:
    return (None if not dim else tuple(dim)) if isinstance(dim, Sequence) else dim


def _extreme(value: Any, place: Any) -> Any:
    """`max` and `min`: of all, of two tensors, or along one dimension with the places where they are."""

    def find(x: Array, dim: Any = None, keepdim: bool = False) -> Any:
        if dim is None:
            return value(x)
        if not isinstance(dim, int):
            return {jnp.max: jnp.maximum, jnp.min: jnp.minimum}[value](x, dim)
        return value(x, axis=dim, keepdims=keepdim), place(x, axis=dim, keepdims=keepdim)

    return find


def _argument(place: Any) -> Any:
    return lambda x, dim=None, keepdim=False: place(x, axis=dim, keepdims=keepdim)


def _var(x: Array, dim: Any = None, unbiased: Any = True, keepdim: bool = False, correction: Any = None) -> Array:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    ddof = (1 if unbiased else 0) if correction is None else correction
    return jnp.var(x, axis=_axes(dim), ddof=ddof, keepdims=keepdim)


def _vector_norm(x: Array, order: float = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Array:
    """linalg_vector_norm: (sum |x|^order)^(1/order); the largest or least |x| for infinite orders, a count for 0."""
    x = jnp.abs(x if dtype is None else x.astype(jax_dtype(dtype)))
    axes = _axes(dim)
    if math.isinf(order):
        return (jnp.max if order > 0 else jnp.min)(x, axis=axes, keepdims=keepdim)
    if order == 0:
        return jnp.sum(x != 0, axis=axes, keepdims=keepdim).astype(x.dtype)
    found = jnp.sum(x**order, axis=axes, keepdims=keepdim)
    return jnp.sqrt(found) if order == 2 else found ** (1 / order)


def _embedding(weight: Array, places: Array, *_: Any, **__: Any) -> Array:
    return jnp.take(weight, places, axis=0)


def _upsample_nearest(x: Array, size: Any = None, scales: Any = None, *_: Any) -> Array:
    factors = scales if isinstance(scales, Sequence) else [n / m for n, m in zip(size, x.shape[2:], strict=True)]
    for axis, factor in enumerate(factors, start=2):
        if factor != int(factor):
            raise NotImplementedError("nearest upsampling by a factor that is no whole number")
        x = jnp.repeat(x, int(factor), axis=axis)
    return x


def table() -> dict[str, Any]:
    """ATen's names to functions of the same arguments."""
    moves = {
        "view": _view, "reshape": _view, "_unsafe_view": _view, "flatten": _flatten, "unflatten": _unflatten,
        "expand": _expand, "expand_as": lambda x, like: jnp.broadcast_to(x, like.shape), "squeeze": _squeeze,
        "view_as": lambda x, like: jnp.reshape(x, like.shape),
        "unsqueeze": jnp.expand_dims, "permute": jnp.transpose, "transpose": _transpose,
        "t": jnp.transpose, "numpy_T": jnp.transpose, "movedim": jnp.moveaxis, "flip": jnp.flip,
        "roll": lambda x, shifts, dims=None: jnp.roll(x, tuple(shifts), tuple(dims) if dims else None),
        "repeat": jnp.tile, "tile": jnp.tile, "pad": _pad, "constant_pad_nd": _pad,
        "upsample_nearest2d": _upsample_nearest,
    }  # fmt: skip
    parts = {
        "cat": jnp.concatenate, "stack": jnp.stack,
        "split": _split, "split_with_sizes": _split, "chunk": _chunk, "unbind": _unbind, "slice": _slice,
        "select": _select, "narrow": lambda x, dim, start, length: _slice(x, dim, start, start + length),
        "index_select": lambda x, dim, index: jnp.take(x, index, axis=dim), "index": _index, "embedding": _embedding,
        "gather": lambda x, dim, index, **_: jnp.take_along_axis(x, index, axis=dim), "tril": jnp.tril,
        "triu": jnp.triu,
    }  # fmt: skip
    made = {
        "arange": _arange, "full": _full, "zeros": _filled(0), "ones": _filled(1), "empty": _filled(0),
        "zeros_like": _like(0), "ones_like": _like(1), "empty_like": _like(0), "full_like": _like(None),
        "new_zeros": _new(0), "new_ones": _new(1), "scalar_tensor": lambda value, **_: jnp.asarray(value),
        "new_full": lambda x, shape, value, **_: jnp.full(tuple(shape), value, x.dtype),
    }  # fmt: skip
    reduced = {
        "sum": _reduction(jnp.sum), "mean": _reduction(jnp.mean), "amax": _reduction(jnp.max),
        "amin": _reduction(jnp.min), "prod": _reduction(jnp.prod), "any": _reduction(jnp.any),
        "all": _reduction(jnp.all), "max": _extreme(jnp.max, jnp.argmax), "min": _extreme(jnp.min, jnp.argmin),
        "argmax": _argument(jnp.argmax), "argmin": _argument(jnp.argmin), "var": _var,
        "std": lambda *args, **kwargs: jnp.sqrt(_var(*args, **kwargs)),
        "cumsum": lambda x, dim, **_: jnp.cumsum(x, axis=dim), "linalg_vector_norm": _vector_norm,
        "logsumexp": _reduction(logsumexp),
    }  # fmt: skip
    sizes = {"sym_size": lambda x, dim: x.shape[dim], "sym_numel": lambda x: math.prod(x.shape)}
    return {**moves, **parts, **made, **reduced, **sizes}


PYTHON: dict[Any, Any] = {
    operator.add: operator.add, operator.sub: operator.sub, operator.mul: operator.mul,
    operator.floordiv: operator.floordiv, operator.mod: operator.mod, operator.getitem: operator.getitem,
    operator.neg: operator.neg,
}  # fmt: skip
"""What a graph computes with sizes, in Python: it works on JAX's symbolic sizes as they are."""
