"""A program of form XLA over several devices: lowered for a compiler, or run once over those of XLA's CPU back end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from vivace.core.errors import NotApplicable
from vivace.core.program import Model
from vivace.runtimes.xla import session, stablehlo
from vivace.runtimes.xla.layout import Layout, Placing, placing


def lowered(jax: Any, model: Model, size: int, devices: Sequence[Any], layout: Layout) -> tuple[Any, Placing]:
    """The stored program for a call of `size` samples over devices, ready to be compiled. Call it within
    `stablehlo.wide`."""
    exported, weights = stablehlo.read(Path(model.program))
    place = placing(jax, devices, layout, model.signature, len(weights), size)
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
        held = session.placed(jax, weights, place.weights)
        return [
            [session.copied(answer) for answer in compiled(held, session.placed(jax, leaves, place.inputs))]
            for leaves in calls
        ]
