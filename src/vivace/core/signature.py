"""What a program takes and gives: named, typed, shaped tensors, and how a call maps to them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from vivace.core.errors import CallError
from vivace.core.structure import Structure

MOST_ELEMENTS = 1 << 40
"""Of one tensor that a document describes."""
_MOST_DIMENSIONS = 64


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """One flat tensor. `shape` holds None for a dimension that may vary; `dtype` is torch's name, such as float32.

    `batch_axis` is the dimension that counts samples, also where their number is fixed, or None where there is none.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    batch_axis: int | None = None

    def problem_with(self, dtype: str, shape: Sequence[int]) -> str | None:
        """Why a tensor does not fit, as a sentence; None when it does."""
        if dtype != self.dtype:
            return f"{self.name} has dtype {dtype}; allowed is {self.dtype}"
        fits = len(shape) == len(self.shape) and all(
            want is None or want == got for want, got in zip(self.shape, shape, strict=True)
        )
        return None if fits else f"{self.name} has shape {list(shape)}; allowed is {show_shape(self.shape)}"


def show_shape(shape: Sequence[int | None]) -> str:
    """A shape for people, with `any` for a dimension that may vary.

    >>> show_shape((None, 3, 224))
    '[any, 3, 224]'
    """
    return "[" + ", ".join("any" if n is None else str(n) for n in shape) + "]"


@dataclasses.dataclass(frozen=True)
class Signature:
    """How a user calls a program and what comes back.

    `call` is the structure of a dict from parameter name to value, in the order of the parameters; the first
    `positional` of them were given by position in the example, and all may be given by name.
    """

    call: Structure
    positional: int
    inputs: tuple[TensorSpec, ...]
    answer: Structure
    outputs: tuple[TensorSpec, ...]

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the call's parameters, in order."""
        return self.call.keys

    @property
    def is_fixed(self) -> bool:
        """Whether calls of one shape alone are taken."""
        return not any(None in spec.shape for spec in self.inputs)

    @property
    def has_batch(self) -> bool:
        """Whether any number of samples may be given at once."""
        return any(spec.batch_axis is not None and spec.shape[spec.batch_axis] is None for spec in self.inputs)

    def named(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The call as a dict by parameter name, complete and in order; CallError when it does not fit."""
        if len(args) > len(self.parameters):
            raise CallError(f"received {len(args)} positional arguments; allowed are {self.describe_call()}")
        given = dict(zip(self.parameters, args, strict=False))
        for name, value in kwargs.items():
            if name not in self.parameters or name in given:
                raise CallError(
                    f"received an unexpected or repeated argument {name!r}; allowed are {self.describe_call()}"
                )
            given[name] = value
        missing = [name for name in self.parameters if name not in given]
        if missing:
            raise CallError(f"missing argument {', '.join(missing)}; expected {self.describe_call()}")
        return {name: given[name] for name in self.parameters}

    def describe_call(self) -> str:
        """The accepted call for people: parameters, and each tensor's dtype and shape."""
        tensors = ", ".join(f"{spec.name}: {spec.dtype}{show_shape(spec.shape)}" for spec in self.inputs)
        return f"({', '.join(self.parameters)}) with {tensors}"

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return {
            "call": self.call.to_json(),
            "positional": self.positional,
            "inputs": [dataclasses.asdict(spec) for spec in self.inputs],
            "answer": self.answer.to_json(),
            "outputs": [dataclasses.asdict(spec) for spec in self.outputs],
        }

    @staticmethod
    def from_json(node: Mapping[str, Any]) -> Signature:
        """Read what `to_json` wrote. Raises KeyError, TypeError, ValueError and the like for anything else."""
        found = Signature(
            call=Structure.from_json(node["call"]),
            positional=node["positional"],
            inputs=tuple(_spec(entry) for entry in node["inputs"]),
            answer=Structure.from_json(node["answer"]),
            outputs=tuple(_spec(entry) for entry in node["outputs"]),
        )
        found._check()
        return found

    def _check(self) -> None:
        if self.call.kind != "dict" or type(self.positional) is not int:
            raise ValueError("a call is a dict by parameter name, some of it given by position")
        if not 0 <= self.positional <= len(self.parameters):
            raise ValueError(f"{self.positional} of {len(self.parameters)} parameters cannot go by position")
        if (self.call.tensors, self.answer.tensors) != (len(self.inputs), len(self.outputs)):
            raise ValueError("the call or the answer has another number of tensors than are described")


def _spec(entry: Mapping[str, Any]) -> TensorSpec:
    spec = TensorSpec(entry["name"], entry["dtype"], tuple(entry["shape"]), entry["batch_axis"])
    sizes = [n for n in spec.shape if n is not None]
    fits = all(type(n) is int and 0 <= n <= MOST_ELEMENTS for n in sizes) and len(spec.shape) <= _MOST_DIMENSIONS
    if not fits or math.prod(sizes) > MOST_ELEMENTS:
        raise ValueError(f"a tensor has the shape {str(entry['shape'])[:80]}")
    if not isinstance(spec.name, str) or not isinstance(spec.dtype, str):
        raise TypeError("a tensor's name and dtype are texts")
    if spec.batch_axis is not None and (
        type(spec.batch_axis) is not int or spec.batch_axis not in range(len(spec.shape))
    ):
        raise ValueError(f"the batch axis of {spec.name!r} is {spec.batch_axis!r}, in {len(spec.shape)} dimensions")
    return spec
