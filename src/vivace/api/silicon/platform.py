"""Which platform of JAX a search computes on: a TPU where one was asked for or is there, opened once beforehand."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from vivace.core.errors import EnvironmentFault
from vivace.core.machine import JaxPlatform, Machine
from vivace.core.registry import is_installed
from vivace.measure.process import Limits, Worker
from vivace.runtimes.xla import stablehlo

TPU = JaxPlatform("tpu", is_exclusive=True)
PLATFORMS = {"tpu": TPU}
"""By what `--device` calls them."""
OPENING = Limits(load=120)
INSTALL = "pip install 'jax[tpu]' brings both, libtpu under terms of Google's own"
ELSEWHERE = (
    "`vivace synthesize TARGET --chip tpu-v5e` compiles for one that is not there and tells what its compiler says, "
    f"and on a host with a TPU this works with JAX and libtpu ({INSTALL})"
)


def platform_of(device: str, machine: Machine) -> JaxPlatform | None:
    """What programs of form XLA run on when `device` was asked for; None leaves that to JAX.

    A TPU is opened once, in a process of its own. "auto" takes a TPU that answers, else the CPU, with a note why.
    Raises EnvironmentFault for "tpu" where there is none or JAX cannot open it, MissingExtra without JAX.
    """
    if device in PLATFORMS:
        return opened(PLATFORMS[device], machine)
    if device == "auto" and machine.tpus:
        try:
            return opened(TPU, machine)
        except EnvironmentFault as error:
            return JaxPlatform("cpu", note=f"the TPU was not used: {error}")
    return JaxPlatform("cpu") if device == "cpu" or machine.tpus else None


def opened(platform: JaxPlatform, machine: Machine) -> JaxPlatform:
    """The platform with the kinds of its devices, asked in a process of its own, which gives them back when it ends.

    Raises as `platform_of`.

    >>> opened(JaxPlatform("cpu"), machine).kinds  # doctest: +SKIP
    ('cpu',)
    """
    if platform.name == "tpu" and not machine.tpus:
        raise EnvironmentFault(f"device (--device) is tpu, but this machine has no TPU; {ELSEWHERE}")
    stablehlo.require_jax()
    if platform.name == "tpu" and not is_installed("libtpu"):
        raise EnvironmentFault(
            f"device (--device) is tpu, but libtpu, by which JAX sees one, is not installed; {INSTALL}"
        )
    with (
        tempfile.TemporaryDirectory(prefix="vivace-") as folder,
        Worker(Path(folder), OPENING, platform.variables) as worker,
    ):
        try:
            kinds = worker.open("vivace.runtimes.xla.devices:open_devices", {"platform": platform.name})
        except EnvironmentFault as error:
            raise EnvironmentFault(
                f"device (--device) is {platform.name}, but JAX cannot open it: {error}; one process at a time has a "
                f"TPU, so end others that use it, and check that the versions of JAX and libtpu fit: {INSTALL}"
            ) from error
    return dataclasses.replace(platform, kinds=tuple(kinds))
