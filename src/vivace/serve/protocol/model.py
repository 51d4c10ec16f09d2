"""What the protocol needs to know of a model: its tensors by name, and what was learned of the requests it takes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from vivace.core.errors import UsageError
from vivace.core.signature import Signature, TensorSpec, show_shape
from vivace.serve.protocol.datatypes import OF_TORCH, Datatype

VERSION = "1"
PLATFORM = "vivace"


@dataclasses.dataclass(frozen=True)
class Port:
    """One input or output: a tensor's spec and its data type."""

    spec: TensorSpec
    datatype: Datatype

    @property
    def name(self) -> str:
        """The tensor's name."""
        return self.spec.name

    @property
    def is_batched(self) -> bool:
        """Whether any number of samples may be given along its batch axis."""
        return self.spec.batch_axis is not None and self.spec.shape[self.spec.batch_axis] is None

    def byte_count(self, shape: Sequence[int]) -> int:
        """Bytes of a tensor of this shape."""
        return math.prod(shape) * self.datatype.bytes

    def to_json(self) -> dict[str, Any]:
        """As the model's metadata name it: -1 for a dimension that may vary."""
        shape = [-1 if size is None else size for size in self.spec.shape]
        return {"name": self.name, "datatype": self.datatype.name, "shape": shape}

    def describe(self) -> str:
        """For people: name, data type and shape."""
        return f"{self.name}: {self.datatype.name}{show_shape(self.spec.shape)}"


@dataclasses.dataclass(frozen=True)
class Model:
    """A model as clients see it."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    @staticmethod
    def of(name: str, signature: Signature) -> Model:
        """The model of a signature. Raises UsageError for a tensor of a type that the protocol has no name for."""
        return Model(name, tuple(map(_port, signature.inputs)), tuple(map(_port, signature.outputs)))

    def input(self, name: object) -> Port | None:
        """The input of this name, if there is one."""
        return next((port for port in self.inputs if port.name == name), None)

    def metadata(self) -> dict[str, Any]:
        """The document that the protocol defines."""
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": PLATFORM,
            "inputs": [port.to_json() for port in self.inputs],
            "outputs": [port.to_json() for port in self.outputs],
        }

    def describe_inputs(self) -> str:
        """For messages: every input with its type and shape."""
        return ", ".join(port.describe() for port in self.inputs)


def _port(spec: TensorSpec) -> Port:
    if spec.dtype not in OF_TORCH:
        raise UsageError(
            f"{spec.name} has dtype {spec.dtype}, which the Open Inference Protocol cannot carry; allowed are "
            f"{', '.join(OF_TORCH)}"
        )
    return Port(spec, OF_TORCH[spec.dtype])
