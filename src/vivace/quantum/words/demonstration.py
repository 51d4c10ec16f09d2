"""What one of the words means as a circuit that was run: its readings, a statistic that could fail, and a bound."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vivace.core.measurement import Interval
from vivace.quantum import simulator
from vivace.quantum.intervals import CONFIDENCE, expectation
from vivace.quantum.limits import STANDARD, SimulationLimits
from vivace.quantum.machines import QuantumMachine
from vivace.quantum.picture import Picture, picture_of, text_of


@dataclasses.dataclass(frozen=True)
class Histogram:
    """How often each reading was seen, under the name of the circuit that gave it."""

    name: str
    counts: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Demonstration:
    """One word run on the simulator, SIMULATED. `value` is the statistic with its 95% interval, `bound` what it must
    exceed for the claim to hold, and `expected` what an ideal machine gives. `machine` is empty for an ideal one."""

    key: str
    title: str
    claim: str
    statistic: str
    value: Interval
    bound: float
    expected: float
    histograms: tuple[Histogram, ...]
    picture: Picture
    text: str
    shots: int
    machine: str
    caution: str

    @property
    def holds(self) -> bool:
        """Whether the whole interval is above the bound."""
        return self.value.low > self.bound


@dataclasses.dataclass(frozen=True)
class Runner:
    """Runs circuits: shots, seed, a machine whose noise they meet (None for an ideal one), and limits."""

    shots: int = simulator.SHOTS
    seed: int = 0
    machine: QuantumMachine | None = None
    limits: SimulationLimits = STANDARD

    def counts(self, circuits: Sequence[Any]) -> list[dict[str, int]]:
        """The readings of each circuit."""
        ready = [simulator.translated(circuit, self.machine, self.seed) for circuit in circuits]
        return simulator.sampled(ready, self.shots, self.seed, self.machine, self.limits)

    @property
    def name(self) -> str:
        """The machine's name; empty for an ideal one."""
        return "" if self.machine is None else self.machine.name


def parity(counts: Mapping[str, int], confidence: float = CONFIDENCE) -> Interval:
    """The mean product of all bits read, each +1 for 0 and -1 for 1.

    >>> parity({"00": 30, "11": 30, "01": 40}).value
    0.19999999999999996
    """
    even = sum(count for bits, count in counts.items() if bits.count("1") % 2 == 0)
    return expectation(even, sum(counts.values()), confidence)


def pictured(circuit: Any) -> tuple[Picture, str]:
    """A circuit as a picture and as text."""
    return picture_of(circuit), text_of(circuit)
