"""Tensors as JSON numbers, which is slow and does not carry every value: the way for people and small requests."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vivace.serve.protocol.model import Port
from vivace.serve.protocol.refusal import Refusal


def from_json(port: Port, shape: Sequence[int], data: Any) -> bytes:
    """Little-endian, row-major bytes of a tensor given as a list, nested or flat. Raises Refusal for what does not fit.

    The count is compared with the shape before an array is made.
    """
    code = port.datatype.numpy
    if not code:
        raise Refusal(400, f"{port.name} is {port.datatype.name}, which JSON cannot carry; send it as binary data")
    if not isinstance(data, list):
        raise Refusal(400, f"{port.name} has no data; give a list of numbers, or binary_data_size and binary data")
    flat = data if not data or not isinstance(data[0], list) else list(_flat(data))
    needed = math.prod(shape)
    if len(flat) != needed:
        raise Refusal(400, f"{port.name} has {len(flat)} values; its shape {list(shape)} takes {needed}")
    return _array(port, flat).tobytes()


def to_json(port: Port, data: bytes) -> list[Any]:
    """The values of a tensor, flat and row-major. Raises Refusal where JSON cannot carry them."""
    if not port.datatype.numpy:
        raise Refusal(400, f"{port.name} is {port.datatype.name}, which JSON cannot carry; ask for it as binary data")
    values = np.frombuffer(data, port.datatype.numpy)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise Refusal(
            400, f"{port.name} holds NaN or infinite values, which JSON cannot carry; ask for it as binary data"
        )
    found: list[Any] = values.tolist()
    return found


def _array(port: Port, flat: list[Any]) -> np.ndarray[Any, Any]:
    kinds = set(map(type, flat))
    target = np.dtype(port.datatype.numpy)
    kinds_of: dict[str, set[type]] = {"b": {bool}, "f": {int, float}}
    allowed = kinds_of.get(target.kind, {int})
    if not kinds <= allowed:
        told = ", ".join(sorted(kind.__name__ for kind in kinds - allowed))
        raise Refusal(400, f"{port.name} holds values of type {told}; {port.datatype.name} takes none of these")
    if target.kind in "iu":
        bounds = np.iinfo(target)
        if flat and not bounds.min <= min(flat) <= max(flat) <= bounds.max:
            raise Refusal(
                400, f"{port.name} holds values outside of {port.datatype.name}: {bounds.min} to {bounds.max}"
            )
        return np.array(flat, target)
    with np.errstate(over="ignore"):
        values = np.array(flat, np.float64 if target.kind == "f" else target).astype(target)
    if target.kind == "f" and not np.isfinite(values).all():
        raise Refusal(400, f"{port.name} holds values outside of {port.datatype.name}; send smaller ones")
    return values


def _flat(value: Any) -> Iterator[Any]:
    """The numbers of nested lists; their depth was checked when the text was."""
    for item in value:
        if isinstance(item, list):
            yield from _flat(item)
        else:
            yield item
