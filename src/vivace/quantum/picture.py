"""A circuit as plain values: what stands on its wires, column by column, so that anything can draw it; and as text."""

from __future__ import annotations

import dataclasses
from typing import Any

MOST_COLUMNS = 26
LONG = 100


@dataclasses.dataclass(frozen=True)
class PlacedGate:
    """One gate of a picture: its name with its angle, and its wires from the first; `controls` of them come first."""

    name: str
    wires: tuple[int, ...]
    controls: int = 0

    def __post_init__(self) -> None:
        if not self.wires or not 0 <= self.controls < len(self.wires) or min(self.wires) < 0:
            raise ValueError(f"a gate on the wires {self.wires} with {self.controls} controls cannot be drawn")


@dataclasses.dataclass(frozen=True)
class Picture:
    """The first columns of a circuit. Gates of one column act at the same time. `more` gates are left out.

    >>> Picture(("q0",), ((PlacedGate("H", (0,)),),)).columns[0][0].name
    'H'
    """

    wires: tuple[str, ...]
    columns: tuple[tuple[PlacedGate, ...], ...]
    more: int = 0


def picture_of(circuit: Any, most: int = MOST_COLUMNS) -> Picture:
    """The picture of a qiskit circuit, each gate in the first column where its wires, and those between, are free."""
    columns: list[list[PlacedGate]] = []
    free = [0] * circuit.num_qubits
    left_out = 0
    for step in circuit.data:
        if step.operation.name == "barrier":
            continue
        wires = tuple(circuit.find_bit(qubit).index for qubit in step.qubits)
        span = range(min(wires), max(wires) + 1)
        column = max(free[wire] for wire in span)
        for wire in span:
            free[wire] = column + 1
        if column >= most:
            left_out += 1
            continue
        while len(columns) <= column:
            columns.append([])
        columns[column].append(
            PlacedGate(_name(step.operation), wires, int(getattr(step.operation, "num_ctrl_qubits", 0)))
        )
    names = tuple(f"q{wire}" for wire in range(circuit.num_qubits))
    return Picture(names, tuple(map(tuple, columns)), left_out)


def text_of(circuit: Any) -> str:
    """The circuit in characters, as qiskit draws it, folded at a width that terminals have."""
    return str(circuit.draw("text", fold=LONG))


def _name(operation: Any) -> str:
    name = {"measure": "M", "cx": "X", "ccx": "X", "cswap": "SWAP", "cz": "Z"}.get(operation.name, operation.name)
    angles = [float(one) for one in getattr(operation, "params", ()) if isinstance(one, int | float)]
    return f"{name.upper()} {angles[0]:.2f}" if len(angles) == 1 else name.upper()
