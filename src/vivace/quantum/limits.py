"""What a simulation may take: qubits, memory and time are estimated before it runs, and refused with the numbers."""

from __future__ import annotations

import dataclasses

from vivace.core.errors import UsageError

AMPLITUDE_BYTES = 16
"""One complex number in double precision."""
COPIES = 2
"""Of the state: the simulator's own, and what is saved of it or sampled from."""
AMPLITUDE_SECONDS = 4e-9
"""Of one gate on one amplitude. Qiskit Aer 0.18.2 on one AMD EPYC core: 20 qubits, 390 gates in 1.4 s, which is
3.4e-9."""
MIXED_SECONDS = 20e-9
"""Of one gate with its noise on one entry of a density matrix. There too: 7 qubits, 959 gates in 0.58 s (37e-9); 9
qubits, 383 gates in 0.72 s (7e-9)."""
TRAJECTORY_SECONDS, TRAJECTORY_AMPLITUDE_SECONDS = 3e-6, 15e-9
"""Of one gate with its noise in one shot, and more for each amplitude. There too, 4,096 shots: 5 qubits, 221 gates in
4.2 s; 7 qubits, 959 gates in 17 s; 9 qubits, 383 gates in 12 s."""
RUN_SECONDS = 0.02
"""What one run takes beside its gates."""


@dataclasses.dataclass(frozen=True)
class SimulationLimits:
    """The most that one simulation may take: qubits, bytes, and seconds of a whole step such as a layer's circuits.

    Raises UsageError for a limit that is not above zero.
    """

    qubits: int = 20
    memory_bytes: float = 2 * 2**30
    seconds: float = 120.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise UsageError(f"the limit {field.name} is {value!r}; allowed is a number above zero")


STANDARD = SimulationLimits()


@dataclasses.dataclass(frozen=True)
class Demand:
    """What some simulation is expected to take; `what` names it in a refusal."""

    what: str
    qubits: int
    memory_bytes: float
    seconds: float

    def refusal(self, limits: SimulationLimits) -> str:
        """Why it may not run, with the numbers; empty where it may.

        >>> print(demand("a circuit", 30, gates=100).refusal(STANDARD))
        a circuit needs 30 qubits, 34.4 GB and about 429 s; the limits are 20 qubits, 2.15 GB and 120 s
        """
        fits = self.qubits <= limits.qubits
        if fits and self.memory_bytes <= limits.memory_bytes and self.seconds <= limits.seconds:
            return ""
        return (
            f"{self.what} needs {self.qubits} qubits, {_gigabytes(self.memory_bytes)} and about {self.seconds:.3g} s; "
            f"the limits are {limits.qubits} qubits, {_gigabytes(limits.memory_bytes)} and {limits.seconds:.3g} s"
        )


def demand(what: str, qubits: int, gates: int, runs: int = 1) -> Demand:
    """What so many runs of a circuit without noise are expected to take on the simulator."""
    amplitudes = 2.0**qubits
    return Demand(what, qubits, _bytes(amplitudes), runs * (RUN_SECONDS + gates * amplitudes * AMPLITUDE_SECONDS))


def mixed_demand(what: str, qubits: int, gates: int) -> Demand:
    """The same of one run with noise, computed exactly by a density matrix: the square of the amplitudes."""
    entries = 4.0**qubits
    return Demand(what, qubits, _bytes(entries), RUN_SECONDS + gates * entries * MIXED_SECONDS)


def trajectories_demand(what: str, qubits: int, gates: int, shots: int) -> Demand:
    """The same with noise drawn anew in every shot."""
    amplitudes = 2.0**qubits
    each = gates * (TRAJECTORY_SECONDS + amplitudes * TRAJECTORY_AMPLITUDE_SECONDS)
    return Demand(what, qubits, _bytes(amplitudes), RUN_SECONDS + shots * each)


def _bytes(amplitudes: float) -> float:
    return COPIES * AMPLITUDE_BYTES * amplitudes


def check(needed: Demand, limits: SimulationLimits = STANDARD) -> None:
    """Raise UsageError where a simulation is beyond the limits, with what it needs, what is allowed and what to do."""
    if reason := needed.refusal(limits):
        raise UsageError(f"{reason}; ask for less, or raise the limits (--max-qubits, --max-seconds, --max-memory)")


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e6 else f"{size / 1e3:.3g} kB"
