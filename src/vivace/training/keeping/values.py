"""Values that a job's own code keeps: which of them are data, copies of them, and how they are written and read."""

from __future__ import annotations

import base64
import copy
import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vivace.training.standing import PLAIN

GENERATORS = (torch.Generator, random.Random, np.random.Generator, np.random.RandomState)
NUMBERS = (Tensor, np.ndarray, np.generic)
BIT_GENERATORS = (np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64)
CONTAINERS = (list, tuple, set, deque)
OBJECT_BYTES = 32
"""What a number or a text takes beside its letters, about."""
ROW = 64
"""So many whole numbers or more, in a list, are written as one tensor."""


def is_data(value: Any) -> bool:
    """Whether a value is nothing but numbers, texts, arrays and generators, in containers of Python's own."""
    if isinstance(value, dict):
        return all(map(is_data, value.keys())) and all(map(is_data, value.values()))
    if type(value) in CONTAINERS:
        return all(map(is_data, value))
    if torch.is_tensor(value):
        return not isinstance(value, nn.Parameter) and not is_freed(value)
    return isinstance(value, (*PLAIN, bytes, *GENERATORS, *NUMBERS))


def is_freed(tensor: Tensor) -> bool:
    """Whether the memory behind a tensor was taken away, as FSDP does with what it has gathered: to read it would end
    the process."""
    is_plain = tensor.layout is torch.strided and not tensor.is_meta
    return is_plain and tensor.numel() > 0 and tensor.untyped_storage().nbytes() == 0


def is_dense(value: Any) -> bool:
    """Whether a value is a tensor that lies in memory as a block of numbers."""
    return torch.is_tensor(value) and value.layout is torch.strided


def _parts(sparse: Tensor) -> list[Tensor]:
    return [sparse._indices(), sparse._values()]


def weight(value: Any, most: float = math.inf) -> float:
    """About how many bytes data take; at least `most` where they take more, which ends the counting.

    >>> weight([1, "ab", torch.zeros(4)])
    146.0
    """
    if isinstance(value, dict):
        return _sum((part for pair in value.items() for part in pair), most)
    if type(value) in CONTAINERS:
        return _sum(value, most)
    if torch.is_tensor(value):
        return float(OBJECT_BYTES + value.numel() * value.element_size())
    size = value.nbytes if isinstance(value, NUMBERS) else len(value) if isinstance(value, str | bytes) else 0
    return float(OBJECT_BYTES + size)


def _sum(values: Any, most: float) -> float:
    found = float(OBJECT_BYTES)
    for value in values:
        found += weight(value, most - found)
        if found >= most:
            break
    return found


def arrays_in(value: Any) -> Iterator[Any]:
    """The tensors and arrays in a value, itself or in containers of Python's own.

    >>> [one.tolist() for one in arrays_in({"a": [torch.zeros(1)], "b": np.ones(2)})]
    [[0.0], [1.0, 1.0]]
    """
    if isinstance(value, dict):
        yield from itertools.chain.from_iterable(map(arrays_in, value.values()))
    elif type(value) in CONTAINERS:
        yield from itertools.chain.from_iterable(map(arrays_in, value))
    elif torch.is_tensor(value) or isinstance(value, np.ndarray):
        yield value


def copied(value: Any) -> Any:
    """A copy of data; of a tensor its numbers, without what they were computed from."""
    if torch.is_tensor(value):
        return value.detach().clone()
    if type(value) is dict:
        return {key: copied(one) for key, one in value.items()}
    return type(value)(map(copied, value)) if type(value) in (list, tuple) else copy.deepcopy(value)


def equal(one: Any, other: Any) -> bool:
    """Whether two data are the same to the bit, generators by what they would draw.

    >>> equal([1, torch.ones(2)], [1, torch.ones(2)]), equal(1, True), equal(float("nan"), float("nan"))
    (True, False, True)
    """
    if type(one) is not type(other):
        return False
    if torch.is_tensor(one):
        if is_freed(one) or is_freed(other):
            return one is other
        is_like = one.shape == other.shape and one.dtype == other.dtype and one.device == other.device
        if is_like and one.layout is other.layout is torch.sparse_coo:
            return equal(_parts(one), _parts(other))
        return is_like and bool(torch.equal(one, other) or torch.equal(one.nan_to_num(), other.nan_to_num()))
    if isinstance(one, np.ndarray | np.generic):
        is_like = one.dtype == other.dtype and np.shape(one) == np.shape(other)
        return bool(is_like and one.tobytes() == other.tobytes())
    if isinstance(one, GENERATORS):
        return equal(_state(one), _state(other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(map(equal, one.values(), other.values()))
    if type(one) in (list, tuple, deque):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other) or (isinstance(one, float) and math.isnan(one) and math.isnan(other))


def _state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.get_state(legacy=False)


def put_back(holder: Any, kept: Mapping[Any, Any]) -> None:
    """The values as they were, in the objects that were there."""
    for name, value in kept.items():
        now = holder.get(name)
        if torch.is_tensor(now) and torch.is_tensor(value) and now.shape == value.shape and now.dtype == value.dtype:
            with torch.no_grad():
                now.copy_(value)
        elif isinstance(now, np.ndarray) and np.shape(now) == np.shape(value):
            now[...] = value
        elif isinstance(now, torch.Generator):
            now.set_state(value.get_state())
        elif isinstance(now, random.Random):
            now.setstate(value.getstate())
        elif isinstance(now, np.random.Generator):
            now.bit_generator.state = value.bit_generator.state
        elif isinstance(now, np.random.RandomState):
            now.set_state(value.get_state())
        elif isinstance(now, list):
            now[:] = value
        elif isinstance(now, deque):
            now.clear()
            now.extend(value)
        elif isinstance(now, dict | set):
            now.clear()
            now.update(value)
        else:
            holder[name] = value


class Unwritable(Exception):
    """A value has no form here."""


def written(value: Any, tensors: dict[str, Tensor], name: str) -> Any:
    """Data as JSON; their arrays go into `tensors`, under names that begin with `name`. Raises Unwritable for others.

    >>> written({"rates": (0.5, float("inf"))}, {}, "x")
    {'dict': [['rates', {'tuple': [0.5, {'float': 'inf'}]}]]}
    """
    inner: Callable[[Any], Any] = lambda part: written(part, tensors, name)  # noqa: E731

    def laid(tensor: Tensor) -> str:
        label = f"{name}#{len(tensors)}"
        tensors[label] = tensor
        return label

    if type(value) is float and not math.isfinite(value):
        return {"float": repr(value)}
    if type(value) in PLAIN:
        return value
    if type(value) is bytes:
        return {"bytes": base64.b64encode(value).decode()}
    if is_dense(value):
        return {"tensor": laid(value), "device": str(value.device)}
    if torch.is_tensor(value) and value.layout is torch.sparse_coo:
        parts = [laid(one.detach()) for one in (value._indices(), value._values())]
        return {"sparse": parts, "shape": list(value.shape), "coalesced": value.is_coalesced()}
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
        raw = torch.from_numpy(np.frombuffer(value.tobytes(), np.uint8).copy())
        return {"array": laid(raw), "dtype": value.dtype.str, "shape": list(np.shape(value)),
                "number": isinstance(value, np.generic)}  # fmt: skip
    if type(value) is list and len(value) >= ROW and all(type(one) is int and -(2**63) <= one < 2**63 for one in value):
        return {"integers": laid(torch.tensor(value, dtype=torch.int64))}
    if isinstance(value, dict):
        return {"dict": [[inner(key), inner(one)] for key, one in value.items()]}
    if type(value) in CONTAINERS:
        return {type(value).__name__: [inner(one) for one in value]}
    if isinstance(value, torch.Generator):
        return {"torch.Generator": laid(value.get_state()), "device": str(value.device)}
    if type(value) in (random.Random, np.random.RandomState):
        return {type(value).__name__: inner(_state(value))}
    if isinstance(value, np.random.Generator):
        return {"Generator": inner(value.bit_generator.state)}
    raise Unwritable(type(value).__name__)


def read(told: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `written` wrote. Raises KeyError, ValueError or TypeError for what it did not write."""
    if not isinstance(told, dict):
        return told
    kind, content = next(iter(told.items()))
    parts: Callable[[], list[Any]] = lambda: [read(one, tensors) for one in content]  # noqa: E731
    if kind == "float":
        return float(content)
    if kind == "bytes":
        return base64.b64decode(content)
    if kind == "tensor":
        return tensors[content].to(told["device"])
    if kind == "sparse":
        indices, values = (tensors[name] for name in content)
        return torch.sparse_coo_tensor(
            indices, values, told["shape"], check_invariants=True, is_coalesced=told["coalesced"]
        )
    if kind == "integers":
        return tensors[content].tolist()
    if kind == "array":
        found = np.frombuffer(tensors[content].numpy().tobytes(), told["dtype"]).reshape(told["shape"]).copy()
        return found[()] if told["number"] else found
    if kind == "dict":
        return {read(key, tensors): read(one, tensors) for key, one in content}
    if kind == "torch.Generator":
        return torch.Generator(told["device"]).set_state(tensors[content])
    if kind == "Random":
        generator = random.Random()
        generator.setstate(read(content, tensors))
        return generator
    if kind == "RandomState":
        old = np.random.RandomState()
        old.set_state(read(content, tensors))
        return old
    if kind == "Generator":
        state = read(content, tensors)
        kinds = {one.__name__: one for one in BIT_GENERATORS}
        new = np.random.Generator(kinds[state["bit_generator"]]())
        new.bit_generator.state = state
        return new
    return {one.__name__: one for one in CONTAINERS}[kind](parts())
