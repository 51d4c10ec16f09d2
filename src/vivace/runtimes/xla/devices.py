"""A worker's service that tells which devices JAX has on a platform; the worker takes them, and gives them back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vivace.core.errors import EnvironmentFault
from vivace.runtimes.xla import stablehlo


def open_devices(arguments: Mapping[str, Any], payload: object | None = None) -> list[str]:
    """The worker's entry: {"platform": JAX's name} to the kind of each device there.

    The worker must have `JaxPlatform.variables` in its environment from its start. Raises MissingExtra without JAX,
    EnvironmentFault where JAX has no such device, with its own words.
    """
    jax = stablehlo.import_jax()
    try:
        return [str(one.device_kind) for one in jax.devices(arguments["platform"])]
    except Exception as error:  # each platform's library has errors of its own
        told = " ".join(str(error).split())[:300]
        raise EnvironmentFault(f"{type(error).__name__}: {told}") from error
