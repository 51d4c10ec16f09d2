"""Where compilers keep what they made for a run, so that its workers need not make it again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vivace.codegen.build import LIBRARIES
from vivace.core.machine import JaxPlatform

CACHES = {"TORCHINDUCTOR_CACHE_DIR": "inductor", LIBRARIES: "libraries"}
"""Variables that say where compilers keep what they made, and the folders of a run that they name."""


def compiler_variables(folder: Path, platform: JaxPlatform | None = None) -> dict[str, str]:
    """What keeps compilers' caches inside the run, shared by its workers and gone with it; and what JAX computes on."""
    caches = {name: str((folder / kind).absolute()) for name, kind in CACHES.items()}
    return caches if platform is None else {**caches, **platform.variables}


def as_delivered(variables: Mapping[str, str]) -> dict[str, str]:
    """The same for processes whose loading is timed: written networks are compiled there, as they are at the user's."""
    return {name: value for name, value in variables.items() if name != LIBRARIES}
