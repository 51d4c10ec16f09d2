"""The catalogue: one file a technique, in the folder of its stage; found by walking those folders."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

from vivace.core.technique import Technique


def _discover() -> Iterator[type[Technique]]:
    for stage in pkgutil.iter_modules(__path__, f"{__name__}."):
        if stage.ispkg:
            yield from _techniques_in(stage.name)


def _techniques_in(package: str) -> Iterator[type[Technique]]:
    folder = importlib.import_module(package).__path__
    for entry in pkgutil.iter_modules(folder, f"{package}."):
        module = importlib.import_module(entry.name)
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Technique) and value.__module__ == entry.name:
                yield value


CATALOGUE: tuple[type[Technique], ...] = tuple(sorted(_discover(), key=lambda kind: (kind.stage.value, kind.name())))
"""Every technique that Vivace ships, in the order of stages."""
