"""Quantum machines by name: what machines.toml holds of them, each number with its source."""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from vivace.core.errors import unknown_name

FILE = "machines.toml"


@dataclasses.dataclass(frozen=True)
class QuantumMachine:
    """One machine that exists. Errors are average gate infidelities and shares of wrong readings, times are seconds;
    None is what its source does not publish. `pairs` are the qubits that are coupled; none where all are.
    """

    name: str
    vendor: str
    processor: str
    qubits: int
    two_qubit_gate: str
    two_qubit_error: float
    one_qubit_error: float
    readout_error: float
    source: str
    date: str
    two_qubit_seconds: float | None = None
    one_qubit_seconds: float | None = None
    readout_seconds: float | None = None
    t1_seconds: float | None = None
    t2_seconds: float | None = None
    between_shots_seconds: float | None = None
    pairs: tuple[tuple[int, int], ...] = ()

    @property
    def basis(self) -> tuple[str, ...]:
        """The gates that circuits are translated to."""
        return (self.two_qubit_gate, "rz", "sx", "x")

    @property
    def has_times(self) -> bool:
        """Whether its source publishes what a shot takes."""
        return None not in (
            self.two_qubit_seconds, self.one_qubit_seconds, self.readout_seconds, self.between_shots_seconds,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class PhysicalQubit:
    """The qubits of an error-corrected machine that an estimate assumes. `error` is that of every gate and reading."""

    name: str
    error: float
    two_qubit_seconds: float
    readout_seconds: float
    source: str


def machine(name: str) -> QuantumMachine:
    """The machine of a name. Raises UsageError for one that the file does not hold, with the nearest.

    >>> machine("ibm-torino").qubits
    133
    """
    known = machines()
    if name not in known:
        raise unknown_name("quantum machine", name, known)
    return known[name]


@functools.cache
def machines() -> Mapping[str, QuantumMachine]:
    """Every machine by its name, in the order of the file."""
    return {one["name"]: _machine(one) for one in _file()["machine"]}


@functools.cache
def physical_qubits() -> tuple[PhysicalQubit, ...]:
    """The qubits that estimates of error-corrected machines assume."""
    return tuple(PhysicalQubit(**one) for one in _file()["qubit"])


def _machine(node: Mapping[str, Any]) -> QuantumMachine:
    pairs = tuple((int(a), int(b)) for a, b in node.get("pairs", ()))
    return QuantumMachine(**{**node, "pairs": pairs, "date": node["date"].isoformat()})


def _file() -> dict[str, Any]:
    return tomllib.loads((files(__package__) / FILE).read_text(encoding="utf-8"))
