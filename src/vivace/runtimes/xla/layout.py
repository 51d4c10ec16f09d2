"""How a program of form XLA lies on several devices: parts of the batch and of the weights, stored and read again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from vivace.core.documents import strict_json
from vivace.core.errors import ArtifactError
from vivace.core.program import Model
from vivace.core.signature import Signature, TensorSpec

OPTION = "mesh"
"""Of a program's settings: the layout that it was compiled for."""
DATA, TENSOR = "data", "tensor"
MOST_PARTS = 1 << 12


@dataclasses.dataclass(frozen=True)
class Layout:
    """`data` parts of the batch, `tensor` parts of each weight that has a dimension in `dimensions`, in their order."""

    data: int = 1
    tensor: int = 1
    dimensions: tuple[int | None, ...] = ()

    @property
    def devices(self) -> int:
        """How many devices run it together."""
        return self.data * self.tensor

    def within(self, count: int) -> Layout:
        """The same over at most so many devices: fewer parts where there are fewer, each then a whole number of them.

        >>> Layout(2, 4).within(7).devices, Layout(2, 4).within(3).devices, Layout(2, 4).within(1).devices
        (4, 2, 1)
        """
        tensor = _divisor(self.tensor, count)
        return dataclasses.replace(self, tensor=tensor, data=_divisor(self.data, count // tensor))

    def as_option(self) -> str:
        """What is stored of it."""
        return json.dumps(dataclasses.asdict(self))


ALONE = Layout()
"""One device that has everything."""


def _divisor(number: int, most: int) -> int:
    """The largest divisor of a number that is no larger than `most`."""
    return next(part for part in range(min(number, most), 0, -1) if number % part == 0)


def layout_of(model: Model, weights: Sequence[Tensor]) -> Layout:
    """The layout that a stored program was compiled for; ALONE where it was for one device.

    Raises ArtifactError for one that does not fit the program's weights.
    """
    told = model.settings.option(OPTION, "")
    if told == "":
        return ALONE
    try:
        found = Layout(**strict_json.loads(str(told)))
        found = dataclasses.replace(found, dimensions=tuple(found.dimensions))
        parts_fit = all(type(n) is int and 0 < n <= MOST_PARTS for n in (found.data, found.tensor))
        pairs = list(zip(found.dimensions, weights, strict=True))
        fits = parts_fit and all(_splits(dimension, one, found.tensor) for dimension, one in pairs)
    except (ValueError, TypeError) as error:
        raise ArtifactError(f"the option mesh is no layout of this program: {error}") from error
    if not fits:
        raise ArtifactError(f"the option mesh is {str(told)[:80]}, which does not divide the program's weights")
    return found


def _splits(dimension: Any, weight: Tensor, parts: int) -> bool:
    if dimension is None:
        return True
    return type(dimension) is int and 0 <= dimension < weight.dim() and weight.shape[dimension] % parts == 0


@dataclasses.dataclass(frozen=True)
class Placing:
    """Where JAX has each weight, input and answer, and over which devices."""

    devices: Sequence[Any]
    weights: list[Any]
    inputs: list[Any]
    outputs: list[Any]


def placing(jax: Any, devices: Sequence[Any], layout: Layout, signature: Signature, weights: int, size: int) -> Placing:
    """The shardings of a program for calls of `size` samples, over as many devices as its layout has.

    Neighbours hold parts of the same weights. A batch that the parts do not divide is whole on each device.
    """
    if layout.devices == 1:
        alone = jax.sharding.SingleDeviceSharding(devices[0])
        return Placing(
            devices[:1], [alone] * weights, [alone] * len(signature.inputs), [alone] * len(signature.outputs)
        )
    mesh = jax.sharding.Mesh(np.array(devices[: layout.devices]).reshape(layout.data, layout.tensor), (DATA, TENSOR))

    def along(dimension: int | None, name: str) -> Any:
        parts = () if dimension is None else (*(None,) * dimension, name)
        return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*parts))

    def of_batch(spec: TensorSpec) -> Any:
        is_shared = signature.has_batch and size % layout.data == 0
        return along(spec.batch_axis if is_shared else None, DATA)

    return Placing(
        devices[: layout.devices],
        [along(dimension, TENSOR) for dimension in layout.dimensions],
        [of_batch(one) for one in signature.inputs],
        [of_batch(one) for one in signature.outputs],
    )


def words(layout: Layout, wanted: Layout, platform: str) -> str:
    """Where a program runs, for people.

    >>> words(Layout(1, 2), Layout(2, 4), "tpu")
    '2 tpu devices, the weights in 2 parts; it was compiled for 8, the batch in 2 parts, the weights in 4 parts'
    """
    return (
        f"{_told(layout, platform)}; it was compiled for {_told(wanted)}"
        if layout != wanted
        else _told(layout, platform)
    )


def _told(layout: Layout, platform: str = "") -> str:
    counted = " ".join(
        str(one) for one in (layout.devices, platform, platform and f"device{'s' * (layout.devices > 1)}") if one
    )
    parts = [
        f"the {what} in {count} parts"
        for what, count in (("batch", layout.data), ("weights", layout.tensor))
        if count > 1
    ]
    return ", ".join([counted, *parts])
