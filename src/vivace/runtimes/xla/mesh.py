"""A program of form XLA over several devices: where weights, inputs and answers lie, and the program run so."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vivace.core.errors import NotApplicable
from vivace.core.program import Model
from vivace.core.signature import TensorSpec
from vivace.runtimes.program import as_numpy
from vivace.runtimes.xla import session, stablehlo

DATA, TENSOR = "data", "tensor"


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


ALONE = Layout()
"""One device that has everything."""


@dataclasses.dataclass(frozen=True)
class Placing:
    """Where JAX has each weight, input and answer."""

    weights: list[Any]
    inputs: list[Any]
    outputs: list[Any]


def placing(jax: Any, devices: Sequence[Any], layout: Layout, model: Model, weights: int) -> Placing:
    """The shardings of a program over as many devices as its layout has; neighbours hold parts of the same weights."""
    if layout.devices == 1:
        alone = jax.sharding.SingleDeviceSharding(devices[0])
        signature = model.signature
        return Placing([alone] * weights, [alone] * len(signature.inputs), [alone] * len(signature.outputs))
    mesh = jax.sharding.Mesh(np.array(devices).reshape(layout.data, layout.tensor), (DATA, TENSOR))

    def along(dimension: int | None, name: str) -> Any:
        parts = () if dimension is None else (*(None,) * dimension, name)
        return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*parts))

    def of_batch(spec: TensorSpec) -> Any:
        return along(spec.batch_axis if model.signature.has_batch else None, DATA)

    return Placing(
        [along(dimension, TENSOR) for dimension in layout.dimensions],
        [of_batch(one) for one in model.signature.inputs],
        [of_batch(one) for one in model.signature.outputs],
    )


def lowered(jax: Any, model: Model, size: int, devices: Sequence[Any], layout: Layout) -> tuple[Any, Placing]:
    """The stored program for a call of `size` samples over devices, ready to be compiled. Call it within
    `stablehlo.wide`."""
    exported, weights = stablehlo.read(Path(model.program))
    place = placing(jax, devices, layout, model, len(weights))
    specs = [
        stablehlo.spec(jax, one.shape, one.dtype, where) for one, where in zip(weights, place.weights, strict=True)
    ]
    inputs = [
        stablehlo.spec(jax, shape, stablehlo.dtype_of(one), where)
        for shape, one, where in zip(
            session.shapes_of(model.signature, size), model.signature.inputs, place.inputs, strict=True
        )
    ]
    return jax.jit(exported.call, out_shardings=tuple(place.outputs)).lower(specs, inputs), place


def answers(model: Model, size: int, layout: Layout, calls: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """What the program answers over the devices of XLA's CPU back end in this process, for calls of `size` samples.

    XLA_FLAGS must have had `--xla_force_host_platform_device_count` in the process's environment from its start. Raises
    NotApplicable where there are too few devices.
    """
    jax = stablehlo.import_jax()
    devices = jax.devices("cpu")
    if len(devices) < layout.devices:
        raise NotApplicable(f"XLA's CPU back end has {len(devices)} devices here, and {layout.devices} are needed")
    with stablehlo.wide(jax):
        program, place = lowered(jax, model, size, devices[: layout.devices], layout)
        compiled = program.compile()
        _, weights = stablehlo.read(Path(model.program))
        held = [jax.device_put(_given(jax, one), where) for one, where in zip(weights, place.weights, strict=True)]
        found = []
        for leaves in calls:
            given = [jax.device_put(_given(jax, one), at) for one, at in zip(leaves, place.inputs, strict=True)]
            found.append([_gathered(answer) for answer in compiled(held, given)])
    return found


def _given(jax: Any, leaf: Tensor) -> Any:
    if leaf.dtype is torch.bfloat16:
        return as_numpy(leaf.float()).astype(jax.numpy.bfloat16)
    return as_numpy(leaf)


def _gathered(answer: Any) -> Tensor:
    if answer.dtype.name == "bfloat16":
        return torch.from_numpy(np.array(answer.astype("float32"))).bfloat16()
    return torch.from_numpy(np.array(answer))
