"""The catalogue: every technique that is installed, ours and third parties', found by entry point."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from vivace.core.errors import EnvironmentFault, install_line, unknown_name
from vivace.core.technique import Technique

GROUP = "vivace.techniques"


@cache
def techniques() -> Mapping[str, type[Technique]]:
    """Every registered technique by name, in the order of stages.

    An entry point of the group `vivace.techniques` gives a Technique class or an iterable of them. Raises
    EnvironmentFault when two have one name.
    """
    found: dict[str, type[Technique]] = {}
    for entry in entry_points(group=GROUP):
        for technique in _classes(entry.load()):
            other = found.setdefault(technique.name(), technique)
            if other is not technique:
                raise EnvironmentFault(
                    f"two techniques are named {technique.name()!r}: {other.__module__} and "
                    f"{technique.__module__}; rename one or uninstall its package"
                )
    return dict(sorted(found.items(), key=lambda item: (item[1].stage.value, item[0])))


def technique(name: str) -> type[Technique]:
    """One technique by name. Raises UsageError with the nearest names."""
    known = techniques()
    if name not in known:
        raise unknown_name("technique", name, known)
    return known[name]


def missing_package(kind: type[Technique]) -> str | None:
    """Which package a technique lacks here, with the line that installs it; None when all are there."""
    for package in kind.packages:
        if not is_installed(package):
            return f"needs the package {package}; {install_line(kind.extra)}"
    return None


def is_installed(package: str) -> bool:
    """Whether a package is there, without importing it: a folder that an uninstallation left behind is none.

    A package whose libraries are broken counts as installed: only importing it would tell, which takes seconds. `vivace
    techniques` and `vivace doctor` do so; in a search, the plans that need it fail with its error.
    """
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None


def _classes(loaded: Any) -> Iterable[type[Technique]]:
    return loaded if isinstance(loaded, Iterable) else (loaded,)
