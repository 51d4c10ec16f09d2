"""The optional packages of this room, imported when a circuit is first built."""

from __future__ import annotations

import importlib
from typing import Any

from vivace.core.errors import MissingExtra

EXTRA = "quantum"
PACKAGES = ("qiskit", "qiskit_aer")


def qiskit() -> Any:
    """The package qiskit. Raises MissingExtra where it is not installed, with the line that installs it."""
    return _imported("qiskit")


def aer() -> Any:
    """The package qiskit_aer, the simulator. Raises MissingExtra where it is not installed."""
    qiskit()
    return _imported("qiskit_aer")


def require() -> None:
    """Raise MissingExtra unless circuits can be built and simulated here."""
    for name in PACKAGES:
        _imported(name)


def versions() -> dict[str, str]:
    """What is installed, by package."""
    return {name: str(_imported(name).__version__) for name in PACKAGES}


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingExtra(name.replace("_", "-"), EXTRA, "a quantum circuit") from None
