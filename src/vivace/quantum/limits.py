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


def demand(what: str, qubits: int, gates: int, runs: int = 1, is_mixed: bool = False) -> Demand:
    """What so many runs of a circuit are expected to take on the simulator.

    With `is_mixed` the state is a density matrix, the square of the amplitudes. A run under noise by trajectories is
    one run a shot.
    """
    amplitudes = 2.0 ** (2 * qubits if is_mixed else qubits)
    return Demand(
        what,
        qubits,
        COPIES * AMPLITUDE_BYTES * amplitudes,
        runs * (RUN_SECONDS + gates * amplitudes * AMPLITUDE_SECONDS),
    )


def check(needed: Demand, limits: SimulationLimits = STANDARD) -> None:
    """Raise UsageError where a simulation is beyond the limits, with what it needs, what is allowed and what to do."""
    if reason := needed.refusal(limits):
        raise UsageError(f"{reason}; ask for less, or raise the limits (--max-qubits, --max-seconds, --max-memory)")


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e6 else f"{size / 1e3:.3g} kB"
