"""A call as people write it and as runtimes see it: arguments by name, flattened to tensors and put back."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vivace.core.errors import UnsupportedModel, UsageError
from vivace.core.signature import Signature, TensorSpec
from vivace.core.structure import Structure, flatten, normalize_inputs


def is_tensor(value: Any) -> bool:
    """Whether a value becomes a flat leaf."""
    return isinstance(value, Tensor | np.ndarray)


def flat_call(module: Any, inputs: Any) -> tuple[list[Tensor], Structure, int]:
    """An example call as flat tensors, the structure of the dict by parameter name, and how many go by position.

    Names come from the signature of `module.forward`; those of *args are arg0, arg1, ... Raises UsageError for an
    argument that holds anything but tensors and plain constants.
    """
    args, kwargs = normalize_inputs(inputs)
    names = parameter_names(module, len(args))
    repeated = sorted(set(names) & set(kwargs))
    if repeated:
        raise UsageError(f"inputs give the argument {repeated[0]!r} twice, by position and by name; give it once")
    leaves, call = flatten({**dict(zip(names, args, strict=True)), **kwargs}, is_tensor)
    return [as_tensor(leaf) for leaf in leaves], call, len(args)


def parameter_names(module: Any, count: int) -> list[str]:
    """Names of the first `count` positional parameters of `module.forward`."""
    forward = getattr(module, "forward", module)
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(forward).parameters.values()
    named = [p.name for p in parameters if p.kind in kinds][:count]
    if len(named) < count and not any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        raise UsageError(
            f"inputs hold {count} positional arguments, but the model's forward takes {len(named)}: "
            f"{', '.join(named) or 'none'}"
        )
    return named + [f"arg{i}" for i in range(count - len(named))]


def as_tensor(leaf: Any) -> Tensor:
    """A tensor of the same values; a numpy array is shared where it can be."""
    if isinstance(leaf, Tensor):
        return leaf
    if not leaf.flags.writeable or any(stride < 0 for stride in leaf.strides):
        leaf = leaf.copy()
    return torch.from_numpy(leaf)


def dtype_name(dtype: torch.dtype) -> str:
    """torch's name without the prefix.

    >>> dtype_name(torch.float32)
    'float32'
    """
    return str(dtype).removeprefix("torch.")


def torch_dtype(name: str) -> torch.dtype:
    """The dtype of a name.

    >>> torch_dtype("int64")
    torch.int64
    """
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise UnsupportedModel(f"there is no dtype named {name!r}")
    return found


def leaf_names(call: Structure) -> list[str]:
    """A name for each tensor of a call or an answer: `x`, `states.0`, `mask.causal`."""
    return list(_names(call, ""))


def _names(node: Structure, path: str) -> list[str]:
    if node.kind == "tensor":
        return [path or "output"]
    keys = node.keys or tuple(str(i) for i in range(len(node.items)))
    joined = [f"{path}.{key}" if path else key for key in keys]
    if path == "" and not node.keys:
        joined = [f"output.{key}" for key in keys]
    return [name for key, item in zip(joined, node.items, strict=True) for name in _names(item, key)]


def example_leaves(signature: Signature, batch: int = 2, fill: int = 2) -> list[Tensor]:
    """Zeros in the shapes of a signature, with `batch` samples and `fill` where another dimension may vary."""
    return [_zeros(spec, batch, fill) for spec in signature.inputs]


def _zeros(spec: TensorSpec, batch: int, fill: int) -> Tensor:
    shape = [n if n is not None else batch if axis == spec.batch_axis else fill for axis, n in enumerate(spec.shape)]
    return torch.zeros(shape, dtype=torch_dtype(spec.dtype))


def specs_of(
    names: Sequence[str], leaves: Sequence[Tensor], axes: Sequence[int | None], free: Sequence[frozenset[int]]
) -> tuple[TensorSpec, ...]:
    """Specs of flat tensors: `free` are the dimensions of each that may vary."""
    return tuple(
        TensorSpec(name, dtype_name(leaf.dtype), tuple(None if i in may else n for i, n in enumerate(leaf.shape)), axis)
        for name, leaf, axis, may in zip(names, leaves, axes, free, strict=True)
    )
